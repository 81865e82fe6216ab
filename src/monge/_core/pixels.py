"""Images of any mode as 8-bit images of one size, without torch."""

import numpy as np
from PIL import Image


def eight_bits(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit grey ("L") or colour ("RGB"); transparency is laid over white."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):  # 16 bits, which convert("L") would clip at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((values // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating point pixels have no known range")
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        grey = image.mode in ("L", "LA", "La")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("L" if grey else "RGB")
    return image.convert("RGB")


def colours_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Any mode as 8-bit grey ("L") or colour ("RGB"), and its transparency ("L") if it has any."""
    has_alpha = image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info
    if not has_alpha or image.mode.startswith("I"):
        return eight_bits(image), None
    grey = image.mode in ("L", "LA", "La")
    image = image.convert("RGBA")
    return image.convert("RGB").convert("L" if grey else "RGB"), image.getchannel("A")


def cropped(
    image: Image.Image, size: int | None, channels: str | None, crop: int | None = None
) -> Image.Image:
    """The central square of `crop` pixels of an 8-bit image, resized to `size`, grey or in colour.

    None leaves each as it is; a `size` without a crop takes the largest square.
    """
    if channels is not None:
        image = image.convert("L" if channels == "grey" else "RGB")
    side = crop or (min(image.size) if size else None)
    if side is not None:
        if side > min(image.size):
            raise ValueError(f"{image.width}×{image.height} pixels are under the crop of {side}")
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return image
