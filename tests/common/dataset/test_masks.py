"""Images with masks: how they are paired, which files are masks, what is said of damaged ones."""

import os

import numpy as np
import pytest
from PIL import Image

from common.base.paths import Dataset
from common.base.runtime import UserError
from common.dataset.masks import masked_images, read_colour_image, read_mask, require_sizes, write_mask

CLASSES = ("background", "iris", "pupil")


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return Dataset(tmp_path / "set")


def save(path, values, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values))
    (image.convert(mode) if mode else image).save(path)
    return path


def pair(dataset, group, name, *, suffix=".png", size=(2, 3)):
    save(dataset.images / group / f"{name}{suffix}", np.zeros((*size, 3), np.uint8))
    return save(dataset.masks / group / f"{name}.png", np.zeros(size, np.uint8))


def test_images_and_masks_meet_by_group_and_name_whatever_the_suffix(dataset):
    pair(dataset, "b", "2")
    pair(dataset, "a", "1", suffix=".jpg")
    (dataset.images / ".DS_Store").write_bytes(b"")
    found = masked_images(dataset)
    assert {group: [one.key for one in images] for group, images in found.items()} == {"a": ["a/1"], "b": ["b/2"]}
    assert found["a"][0].image == dataset.images / "a" / "1.jpg"


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_an_image_or_a_mask_alone_is_named(kind, dataset):
    pair(dataset, "a", "1")
    pair(dataset, "a", "2")
    (getattr(dataset, kind) / "a" / "2.png").unlink()
    with pytest.raises(UserError, match=rf"{kind}/a: expected a file for each of .* found none of 2"):
        masked_images(dataset)


def test_a_data_set_without_images_two_of_one_name_and_forbidden_names_are_errors(dataset):
    with pytest.raises(UserError, match="no images here; expected images"):
        masked_images(dataset)
    pair(dataset, "a", "1")
    save(dataset.images / "a" / "1.jpg", np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(UserError, match="of the same name as"):
        masked_images(dataset)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_a_mask_may_be_stored_in_any_mode_that_holds_one_number_a_pixel(mode, tmp_path):
    values = np.array([[0, 1], [2, 255]], np.uint8)
    path = tmp_path / "mask.png"
    if mode == "P":
        image = Image.fromarray(values).copy()
        image.putpalette([(7 * k) % 256 for k in range(768)])
        image.save(path)
        with Image.open(path) as written:
            assert written.mode == "P"
    elif mode == "I;16":
        Image.fromarray(values.astype(np.uint16)).save(path)
    else:
        save(path, values, mode)
    assert read_mask(path, CLASSES).tolist() == values.tolist()


def test_an_unknown_id_is_named_with_place_and_number_of_pixels(tmp_path):
    path = save(tmp_path / "mask.png", np.array([[0, 1], [3, 3]], np.uint8))
    with pytest.raises(UserError, match=r"mask\.png: expected ids 0 to 2 and 255 .*, found 3 in 2 pixels, the first at row 1, column 0"):  # fmt: skip
        read_mask(path, CLASSES)
    save(path, np.array([[0, 255]], np.uint8))
    with pytest.raises(UserError, match=r"expected ids 0 to 2, found 255 in 1 pixels"):
        read_mask(path, CLASSES, unlabelled=False)  # a prediction says something everywhere


def test_a_mask_of_colours_is_no_mask(tmp_path):
    path = save(tmp_path / "mask.png", np.array([[[1, 1, 1], [1, 2, 1]]], np.uint8))
    with pytest.raises(UserError, match=r"expected a mask of ids \(index PNG\), found the colour \(1, 2, 1\) at row 0, column 1"):  # fmt: skip
        read_mask(path, CLASSES)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_a_mask_whose_format_changes_numbers_is_an_error_whatever_its_name(form, tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).save(path, format=form)
    with pytest.raises(
        UserError, match=rf"mask\.png: expected a mask of ids \(index PNG\), found {form}, which changes"
    ):
        read_mask(path, CLASSES)


def test_a_picture_is_turned_as_its_camera_says_and_its_mask_has_that_size(dataset):
    """Orientation 6: the first row of what is stored is the right edge of what is shown."""
    mask = pair(dataset, "a", "1", suffix=".jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8] = 255
    image = dataset.images / "a" / "1.jpg"
    Image.fromarray(stored).save(image, exif=turned, quality=95)
    shown = read_colour_image(image)
    assert shown.shape == (32, 16, 3)
    assert shown[:, 8:].min() > 200 > 50 > shown[:, :8].max()
    save(mask, np.zeros((32, 16), np.uint8))
    require_sizes(masked_images(dataset)["a"])


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no image at all", b"GIF89a"])
def test_a_damaged_image_is_a_message(content, tmp_path):
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    for read in (read_colour_image, lambda path: read_mask(path, CLASSES)):
        with pytest.raises(UserError, match=r"mask\.png: damaged or missing image"):
            read(path)


def test_a_pipe_and_a_folder_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(UserError, match=f"{name}: expected a file, found"):
            read_colour_image(tmp_path / name)


def test_a_mask_of_another_size_than_its_image_is_named_with_both(dataset):
    pair(dataset, "a", "1")
    save(dataset.masks / "a" / "1.png", np.zeros((4, 3), np.uint8))
    with pytest.raises(UserError, match=r"masks/a/1\.png: expected the size of its image, 3 x 2, found 3 x 4"):
        require_sizes(masked_images(dataset)["a"])


def test_what_is_written_is_read_again(tmp_path):
    ids = np.random.default_rng(0).integers(0, 3, (7, 5)).astype(np.uint8)
    write_mask(tmp_path / "group" / "mask.png", ids)
    assert (read_mask(tmp_path / "group" / "mask.png", CLASSES) == ids).all()


def test_grey_pictures_of_16_bits_keep_their_brightness(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], np.uint16)).save(path)
    assert read_colour_image(path).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
