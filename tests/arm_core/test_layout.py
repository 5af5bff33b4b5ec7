import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arm_core import InputError, Layout

LAYOUTS = st.builds(Layout, st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(2, 9))


@given(LAYOUTS, st.integers(0, 3))
def test_unflatten_undoes_flatten(layout, count):
    images = torch.arange(count * layout.dims).reshape(count, layout.channels, layout.height, layout.width)
    assert torch.equal(layout.unflatten(layout.flatten(images)), images)


def test_channels_are_fastest_then_columns_then_rows():
    layout = Layout(channels=2, height=2, width=2, categories=2)
    image = torch.tensor([[[0, 10], [20, 30]], [[1, 11], [21, 31]]])[None]
    assert layout.flatten(image).tolist() == [[0, 1, 10, 11, 20, 21, 30, 31]]


@given(LAYOUTS)
def test_coordinates_name_the_place_of_every_dimension(layout):
    images = torch.zeros(layout.dims, layout.channels, layout.height, layout.width)
    for dim, (row, column, channel) in enumerate(layout.coordinates()):
        images[dim, channel, row, column] = 1
    assert torch.equal(layout.flatten(images), torch.eye(layout.dims))


@pytest.mark.parametrize("values", [(0, 4, 4, 2), (1, 0, 4, 2), (1, 4, 4, 1), (True, 4, 4, 2)])
def test_impossible_extents_are_refused(values):
    with pytest.raises(InputError, match="must be an integer of at least"):
        Layout(*values)


def test_images_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"\(n, 1, 4, 4\), got \(2, 3, 4, 4\)"):
        Layout(1, 4, 4, 2).flatten(torch.zeros(2, 3, 4, 4))
