"""Other libraries of entropic transport, called for the cost ‖x - y‖² and uniform weights.

Each module imports its library inside its functions: none of them need be installed.
"""
