"""`run --cache`, and the commands that show and clear what is kept."""

import json

import pytest
from commands import zsadbench


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache that a run has filled."""
    folder = tmp_path_factory.mktemp("kept")
    out = tmp_path_factory.mktemp("out")
    run = ["run", "--methods", "musc,constant", "--limit", "2", "--out", out, "--quiet", "--cache", folder]
    zsadbench(*map(str, run), "--cache-limit", "1GB")
    return folder


def test_info_tells_what_made_it_and_how_much_it_is(cache):
    shown = zsadbench("cache", "info", "--cache", str(cache))
    assert "features: demo 96 px fp32 cpu" in shown.stdout and "images" in shown.stdout
    told = json.loads(zsadbench("cache", "info", "--cache", str(cache), "--json").stdout)
    assert told["bytes"] == sum(one["size"] for one in told["kept"]) > 10_000
    assert {one["about"]["kind"] for one in told["kept"]} == {"features", "images", "facts of images"}


def test_clear_asks_and_removes_nothing_else(cache):
    (cache / "demo").mkdir()
    refused = zsadbench("cache", "clear", "--cache", str(cache))
    assert refused.returncode == 2
    assert "nobody is there to be asked whether to remove" in refused.stderr and "--yes" in refused.stderr
    assert "Removed" in zsadbench("cache", "clear", "--cache", str(cache), "--yes").stderr
    assert [path.name for path in cache.iterdir()] == ["demo"]
    assert json.loads(zsadbench("cache", "info", "--cache", str(cache), "--json").stdout)["kept"] == []


def test_without_a_cache_there_is_nothing_to_show(monkeypatch, tmp_path):
    monkeypatch.delenv("ZSADBENCH_CACHE", raising=False)
    refused = zsadbench("cache", "info")
    assert refused.returncode == 2 and "no cache is named" in refused.stderr
    monkeypatch.setenv("ZSADBENCH_CACHE", str(tmp_path))
    assert "0 bytes in" in zsadbench("cache", "info").stderr


def test_the_variables_mean_what_the_options_mean(monkeypatch, tmp_path):
    from zsadbench.running.request import make_request

    monkeypatch.setenv("ZSADBENCH_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("ZSADBENCH_CACHE_LIMIT", "2GB")
    asked = make_request(out=tmp_path)
    assert (asked.cache, asked.cache_limit) == (tmp_path / "a", 2 * 10**9)
    asked = make_request(out=tmp_path, cache=tmp_path / "b", cache_limit=10**9)
    assert (asked.cache, asked.cache_limit) == (tmp_path / "b", 10**9)


def test_a_limit_that_is_no_size_is_a_sentence(tmp_path):
    done = zsadbench("run", "--out", str(tmp_path / "out"), "--cache", str(tmp_path), "--cache-limit", "3x")
    assert done.returncode == 2
    assert "--cache-limit 3x: expected a size above 0, such as 50GB" in done.stderr
