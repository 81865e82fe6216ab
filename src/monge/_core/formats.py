"""Formats of images that are opened: Pillow has decoders of many more, which nobody needs here."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
