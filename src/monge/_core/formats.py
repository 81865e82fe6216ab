"""Formats of images that are opened: Pillow has others, some of which run other programs."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
