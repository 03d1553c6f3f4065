"""An image is ingested into a bucket, goes on there after it was stopped, and is exported from it."""

import numpy as np
import pytest
import tifffile

from pipeline.errors import InputError
from pipeline.exporting.export import export
from pipeline.ingesting.ingest import ingest
from pipeline.storage.images import open_image
from pipeline.storage.place import Place
from tests.buckets import KEYS, client, objects, s3_server
from tests.ingested import noise


def test_a_bucket_is_filled_resumed_and_read(tmp_path):
    values = noise(2, 150, 160)
    options = {"photometric": "minisblack", "metadata": {"axes": "CYX"}, "rowsperstrip": 32, "compression": "zlib"}
    tifffile.imwrite(tmp_path / "a.tif", values, **options)

    def stop(done, total):
        if done > total // 3:
            raise KeyboardInterrupt

    with s3_server() as port:
        client(port).create_bucket(Bucket="scans")
        options = {**KEYS, "endpoint_url": f"http://127.0.0.1:{port}"}
        shared = {"chunks": 32, "shards": 64, "storage_options": options}
        with pytest.raises(KeyboardInterrupt):
            ingest(tmp_path / "a.tif", "s3://scans/a.zarr", **shared, workers=1, progress=stop)
        place = Place.of("s3://scans/a.zarr", options)
        with pytest.raises(InputError, match="unfinished ingest"):
            open_image(place)
        before = {key for key in objects(port, "scans") if "/c/" in key}
        made = ingest(tmp_path / "a.tif", "s3://scans/a.zarr", **shared, resume=True)
        assert 3 <= made.resumed[0] < made.resumed[1] == 6
        found = objects(port, "scans")
        assert before < set(found)
        assert not [key for key in found if "_haloflow_ingest/" in key]
        ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=32, shards=64)
        files = {f"a.zarr/{f.relative_to(tmp_path / 'a.zarr')}": f for f in (tmp_path / "a.zarr").rglob("*")}
        assert {key: f.read_bytes() for key, f in files.items() if f.is_file()} == found
        export("s3://scans/a.zarr", tmp_path / "b.npy", storage_options=options)
        assert np.array_equal(np.load(tmp_path / "b.npy"), values)
        assert KEYS["secret"].encode() not in b"".join(found.values())
