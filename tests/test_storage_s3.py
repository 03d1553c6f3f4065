"""A bucket on a real S3 server: the same bits as on a disk, few requests, faults that pass or are told plainly."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.errors import HaloflowError
from pipeline.geometry import Interval
from pipeline.storage import patient, tablefiles
from pipeline.storage.findings import TABLES
from pipeline.storage.images import find, open_image
from pipeline.storage.place import VARIABLE, Place
from tests.buckets import KEYS, Proxy, client, free_port, objects, proxied, s3_server, upload

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def port():
    with s3_server() as number:
        yield number


@pytest.fixture
def proxy(port, monkeypatch):
    """A proxy before the server; nothing of the machine's own settings is used."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with proxied(port) as made:
        yield made


@pytest.fixture
def bucket(port):
    """A new, empty bucket."""
    name = f"bucket-{next(NUMBERS)}"
    client(port).create_bucket(Bucket=name)
    return name


def options(proxy: Proxy, backend: str = "fsspec") -> dict:
    if backend == "fsspec":
        return {**KEYS, "endpoint_url": proxy.url, "client_kwargs": {"region_name": "us-east-1"}}
    keys = {"access_key_id": KEYS["key"], "secret_access_key": KEYS["secret"]}
    return {"backend": "obstore", **keys, "endpoint": proxy.url, "region": "us-east-1"}


def an_image(folder: Path, name: str = "image.zarr", size: int = 256, **settings) -> np.ndarray:
    pixels = np.random.default_rng(5).integers(0, 256, (2, size, 64)).astype(np.uint8)
    settings = {"chunks": (1, 32, 64), **settings}
    zarr.create_array(folder / name, shape=pixels.shape, dtype="uint8", **settings)[:] = pixels
    return pixels


def a_config(images, store, **output) -> dict:
    return {
        "input": {"images": images},
        "features": {"edge": {"rows": [[-1, 2], [3, 4]]}, "deep": {"rows": [[[1, 2]], [[3, 5]]]}},
        "layers": [
            {"type": "convolution", "name": "match", "features": ["edge"]},
            {"type": "pool", "window": 3, "stride": 2},
        ],
        "output": {"store": str(store), "chunks": 32, **output},
    }


def run(config: dict, given: dict | None = None, cluster: str = "serial", **how):
    return pipeline.run(pipeline.plan(pipeline.load(config, storage_options=given)), cluster=cluster, **how)


def chunks_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "c" in p.parts}


@pytest.mark.parametrize(("cluster", "backend"), [("local", "fsspec"), ("serial", "obstore")])
def test_a_run_in_a_bucket_gives_the_bits_of_a_local_one_in_few_requests(
    tmp_path, port, proxy, bucket, backend, cluster
):
    an_image(tmp_path)
    total = upload(port, tmp_path / "image.zarr", bucket, "image.zarr")
    run(a_config(str(tmp_path / "image.zarr"), tmp_path / "out.zarr"))
    proxy.requests.clear()
    workers = {"workers": 2} if cluster == "local" else {}
    config = a_config(f"s3://{bucket}/image.zarr", f"s3://{bucket}/out.zarr")
    plan = pipeline.plan(pipeline.load(config, storage_options=options(proxy, backend)))
    assert max(Counter((r.method, r.path) for r in proxy.requests).values()) == 1  # nothing is asked twice
    report = pipeline.run(plan, cluster=cluster, **workers)
    assert report.complete
    assert len(proxy.lists) <= 1, proxy.lists
    reads = [r for r in proxy.requests if r.method == "GET" and "/image.zarr/" in r.path and r.status == 200]
    assert sum(r.sent for r in reads) <= 1.2 * total
    assert proxy.count("HEAD") == 0
    if cluster == "serial":  # no chunk is asked for twice
        assert max(Counter((r.method, r.path) for r in proxy.requests if "/c/" in r.path).values()) == 1
    assert all(
        r.path.startswith((f"/{bucket}/image.zarr/", f"/{bucket}/out.zarr/")) or r.is_list for r in proxy.requests
    )
    made = objects(port, bucket, "out.zarr/image/pool/0/c/")
    assert {f"image/pool/0/c/{k.split('/c/')[1]}": v for k, v in made.items()} == chunks_of(tmp_path / "out.zarr")
    secrets = [KEYS["secret"].encode(), KEYS["key"].encode()]
    assert not [k for k, v in objects(port, bucket, "out.zarr").items() if any(s in v for s in secrets)]


def test_shards_are_read_in_parts_and_without_asking_for_their_size(tmp_path, port, proxy, bucket):
    an_image(tmp_path, shards=(1, 128, 64))
    total = upload(port, tmp_path / "image.zarr", bucket, "image.zarr")
    run(a_config(str(tmp_path / "image.zarr"), tmp_path / "out.zarr", shards=64))
    proxy.requests.clear()
    config = a_config(f"s3://{bucket}/image.zarr", f"s3://{bucket}/out.zarr", shards=64)
    assert run(config, options(proxy)).complete
    assert proxy.count("HEAD") == 0
    reads = [r for r in proxy.requests if r.method == "GET" and "/image.zarr/" in r.path and r.status in (200, 206)]
    assert sum(r.sent for r in reads) <= 1.2 * total
    made = objects(port, bucket, "out.zarr/image/pool/0/c/")
    assert {f"image/pool/0/c/{k.split('/c/')[1]}": v for k, v in made.items()} == chunks_of(tmp_path / "out.zarr")


@pytest.mark.parametrize("backend", ["fsspec", "obstore"])
def test_passing_faults_of_a_bucket_are_waited_out_and_the_bits_are_right(tmp_path, port, proxy, bucket, backend):
    pixels = an_image(tmp_path)
    upload(port, tmp_path / "image.zarr", bucket, "image.zarr")
    kinds = itertools.cycle(["500", "503", "429" if backend == "fsspec" else "500", "reset", "cut"])
    proxy.harm = lambda request, number: next(kinds) if number % 4 == 0 and "/c/" in request.path else None
    source = open_image(Place.of(f"s3://{bucket}/image.zarr", options(proxy, backend)))
    np.testing.assert_array_equal(source.read((Interval(0, 256), Interval(0, 64))), pixels)
    assert [r.status for r in proxy.requests].count(500)


@pytest.mark.parametrize("harm", ["500", "stall"])
def test_a_lasting_fault_is_an_error_that_names_the_object_and_never_a_missing_chunk(
    tmp_path, port, proxy, bucket, monkeypatch, harm
):
    an_image(tmp_path)
    upload(port, tmp_path / "image.zarr", bucket, "image.zarr")
    monkeypatch.setattr(patient, "BULK_DEADLINE", 2.0)
    source = open_image(Place.of(f"s3://{bucket}/image.zarr", options(proxy)))
    proxy.harm = lambda request, _: harm if "/c/" in request.path else None
    began = time.monotonic()
    with pytest.raises(HaloflowError, match=f"cannot be read: s3://{bucket}/image.zarr/c/0/0/0: ") as told:
        source.read((Interval(0, 9), Interval(0, 9)))
    assert time.monotonic() - began < 10
    assert KEYS["secret"] not in str(told.value)


def test_what_is_not_there_or_not_allowed_is_told_in_one_line(tmp_path, proxy, bucket, haloflow, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def info(url: str, **given: object) -> str:
        monkeypatch.setenv(VARIABLE, json.dumps(given))
        began = time.monotonic()
        code, out, err = haloflow("info", url)
        assert (code, out, err.count("error: ")) == (2, "", 1), err
        assert time.monotonic() - began < 45
        assert url in err or url.rpartition("/")[0] in err
        assert KEYS["secret"] not in err
        return err

    assert "there is no such image" in info(f"s3://{bucket}/none.zarr", **options(proxy))
    assert "there is no such bucket" in info("s3://not-there/none.zarr", **options(proxy))
    without = {"endpoint_url": proxy.url, "client_kwargs": {"region_name": "us-east-1"}}
    assert "no credentials were found" in info(f"s3://{bucket}/none.zarr", **without)
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "cannot be reached" in info(f"s3://{bucket}/a.zarr", **{**options(proxy), "endpoint_url": nobody})
    proxy.harm = lambda *_: "500"
    assert "s3://" in info(f"s3://{bucket}/a.zarr", **options(proxy))
    assert "no such storage options" in info(f"s3://{bucket}/a.zarr", **options(proxy), backend="obstore")
    assert "no storage option 'anom'" in info(f"s3://{bucket}/a.zarr", **options(proxy), anom=True)
    assert "expected fsspec or obstore" in info(f"s3://{bucket}/a.zarr", backend="boto")


def test_a_process_that_ends_with_an_error_of_a_bucket_says_no_more_than_that():
    """Requests that were still under way when the first failed were complained of with tracebacks at the end."""
    given = {
        **KEYS,
        "endpoint_url": f"http://127.0.0.1:{free_port()}",
        "config_kwargs": {"retries": {"total_max_attempts": 2}},
    }
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "info", "s3://nobody/a.zarr"],
        env={**os.environ, VARIABLE: json.dumps(given)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert re.fullmatch(r"error: s3://nobody/a.zarr: cannot be reached .*\n", ended.stderr), ended.stderr


def test_a_pattern_names_the_images_of_a_bucket_in_one_listing(tmp_path, port, proxy, bucket):
    for name in ("b.zarr", "a.zarr", "c.txt"):
        an_image(tmp_path, name, 32)
        upload(port, tmp_path / name, bucket, f"scans/{name}")
    found = find([f"s3://{bucket}/scans/*.zarr"], options(proxy))
    assert [str(place) for place in found] == [f"s3://{bucket}/scans/{n}.zarr" for n in "ab"]
    assert len(proxy.requests) == len(proxy.lists) == 1
    with pytest.raises(HaloflowError, match="there is no such image"):
        find([f"s3://{bucket}/scans/*.tif"], options(proxy))
    with pytest.raises(HaloflowError, match="write a '\\*' for each level"):
        find([f"s3://{bucket}/**/a.zarr"], options(proxy))
    with pytest.raises(HaloflowError, match="cannot be listed"):
        find(["https://host/*.zarr"])


def test_a_store_in_a_bucket_is_replaced_only_if_asked_and_only_by_what_is_its_own(tmp_path, port, proxy, bucket):
    an_image(tmp_path)
    upload(port, tmp_path / "image.zarr", bucket, "image.zarr")
    config = a_config(f"s3://{bucket}/image.zarr", f"s3://{bucket}/out.zarr")
    run(config, options(proxy))
    first = objects(port, bucket, "out.zarr/image/")
    client(port).put_object(Bucket=bucket, Key="out.zarr/thesis.tex", Body=b"years of work")
    with pytest.raises(HaloflowError, match="exists already"):
        run(config, options(proxy))
    run({**config, "output": {**config["output"], "layers": ["match", "pool"]}}, options(proxy), overwrite=True)
    now = objects(port, bucket, "out.zarr/")
    assert now["out.zarr/thesis.tex"] == b"years of work"
    assert [key for key in now if "/match/" in key]
    run(config, options(proxy), overwrite=True)
    assert objects(port, bucket, "out.zarr/image/") == first
    client(port).put_object(Bucket=bucket, Key="theirs/zarr.json", Body=b"{}")
    with pytest.raises(HaloflowError, match="was not made by haloflow"):
        run(a_config(f"s3://{bucket}/image.zarr", f"s3://{bucket}/theirs"), options(proxy), overwrite=True)


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_store_whose_making_was_interrupted_is_known_as_ours(tmp_path, port, proxy, bucket, monkeypatch, after):
    an_image(tmp_path, size=32)
    upload(port, tmp_path / "image.zarr", bucket, "image.zarr")
    config = a_config(f"s3://{bucket}/image.zarr", f"s3://{bucket}/out.zarr")
    planned = pipeline.plan(pipeline.load(config, storage_options=options(proxy)))  # the client is made in its own time
    monkeypatch.setattr(patient, "DEADLINE", 5.0)
    monkeypatch.setattr(patient, "BULK_DEADLINE", 1.0)
    puts = itertools.count()
    proxy.harm = lambda request, _: (
        "500" if request.method == "PUT" and "/lock/" not in request.path and next(puts) >= after else None
    )
    try:
        told = str(pipeline.run(planned, "serial"))
    except HaloflowError as error:
        told = str(error)
    assert next(puts) > after, told
    proxy.harm = None
    monkeypatch.undo()
    with pytest.raises(HaloflowError, match="exists already"):
        run(config, options(proxy))
    assert run(config, options(proxy), overwrite=True).complete


@pytest.mark.parametrize("backend", ["fsspec", "obstore"])
def test_how_large_a_table_is_takes_no_reading_of_it(bucket, proxy, backend):
    place, key = Place.of(f"s3://{bucket}/o.zarr", options(proxy, backend)), f"{TABLES}/detections.csv"
    noted = {key: (2**20, 0)}
    assert not tablefiles.is_as_large(place, key, noted)
    place.write(key, b" " * 2**20)
    proxy.requests.clear()
    assert tablefiles.is_as_large(place, key, noted)
    assert not tablefiles.is_as_large(place, key, {key: (3, 0)})
    assert sum(request.sent for request in proxy.requests) < 2**16
