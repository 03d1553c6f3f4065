"""Images within Zarr groups, of which each has the name 0 or that of a layer: fields of a plate, maps of a batch."""

from pathlib import Path

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.errors import InputError
from pipeline.storage.images import find_apart, open_image, stem
from tests.examples import described

FIELDS = ["A/1/0", "A/1/1", "B/3/0"]


@pytest.fixture(autouse=True)
def plate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outer = zarr.create_group("plate.ome.zarr", attributes={"ome": {"version": "0.5", "plate": {}}})
    for number, field in enumerate(FIELDS):
        image = outer.create_group(field, attributes=described("DAPI"))
        image.create_array("0", data=np.full((1, 6, 8), number, np.float32), dimension_names=("c", "y", "x"))


def job(images, store):
    layer = {"type": "convolution", "name": "same", "features": "one", "match": "sum"}
    features = {"one": {"rows": [[1]]}}
    return pipeline.load(
        {"input": {"images": images}, "features": features, "layers": [layer], "output": {"store": store}}
    )


def test_the_fields_of_a_plate_and_then_their_maps_are_run_in_a_batch():
    for images, store, names in (
        ("plate.ome.zarr/*/*/[0-9]*", "maps.zarr", ["plate_A_1_0", "plate_A_1_1", "plate_B_3_0"]),
        ("maps.zarr/plate_*/same", "again.zarr", [f"maps_plate_{well}_same" for well in ("A_1_0", "A_1_1", "B_3_0")]),
    ):
        made = job(images, store)
        assert pipeline.run(pipeline.plan(made), cluster="serial").complete
        assert pipeline.verify(made).passed
        tree = pipeline.open(store)
        assert sorted(tree.children) == names
        assert [float(tree[f"{name}/same"]["same"].max()) for name in names] == [0, 1, 2]


def test_a_plate_is_told_how_its_images_are_named():
    with pytest.raises(InputError, match=r"plate\.ome\.zarr: is a plate of many images; name them") as told:
        open_image("plate.ome.zarr")
    pattern = str(told.value).split()[-1]
    assert [str(place) for place in find_apart([pattern])] == [f"plate.ome.zarr/{field}" for field in FIELDS]


def test_links_to_images_of_one_name_are_images_of_theirs():
    for number, field in enumerate(FIELDS):
        Path(f"patient {number}.zarr").symlink_to(Path("plate.ome.zarr", field))
    assert [stem(str(place)) for place in find_apart(["patient*"])] == ["patient 0", "patient 1", "patient 2"]


def test_a_store_of_maps_says_which_images_it_holds_but_not_its_own_records():
    store = zarr.create_group("m.zarr")
    for name in ("_haloflow", "a", "b"):
        store.create_group(name)
    with pytest.raises(InputError, match=r"; it holds a, b: name one of them"):
        open_image("m.zarr")
