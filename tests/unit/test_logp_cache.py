"""The reference cache: what was put comes back exactly, damage is counted and never read, processes do not mix."""

import hashlib

import pytest

from avere_ray.errors import StorageError
from avere_ray.logp_cache import LogpCache


def _key(name):
    return hashlib.sha256(name.encode()).hexdigest()


def test_figures_come_back_bit_for_bit_in_another_process(tmp_path):
    values = (-1.5, -0.1, -1e-300, -123.456789012345)
    with LogpCache(tmp_path) as cache:
        cache.put(_key("a"), values)
        cache.put(_key("b"), ())
    again = LogpCache(tmp_path)
    assert again.get(_key("a")) == values
    assert again.get(_key("b")) == ()
    assert (again.hits, again.misses, len(again)) == (2, 0, 2)


def test_an_unknown_key_is_a_miss(tmp_path):
    cache = LogpCache(tmp_path)
    assert cache.get(_key("a")) is None
    assert cache.misses == 1


@pytest.mark.parametrize("cut", [1, 4, 30, 43])
def test_a_record_cut_off_by_a_kill_is_counted_and_the_rest_is_kept(tmp_path, cut):
    with LogpCache(tmp_path) as cache:
        cache.put(_key("a"), (-1.0,))
        cache.put(_key("b"), (-2.0,))
    file = next(tmp_path.glob("*.logps"))
    file.write_bytes(file.read_bytes()[:-cut])
    again = LogpCache(tmp_path)
    assert again.get(_key("a")) == (-1.0,)
    assert again.get(_key("b")) is None
    assert again.damaged == 1


def test_a_flipped_bit_is_never_read_as_a_figure(tmp_path):
    with LogpCache(tmp_path) as cache:
        cache.put(_key("a"), (-1.0,))
    file = next(tmp_path.glob("*.logps"))
    data = bytearray(file.read_bytes())
    data[36] ^= 1
    file.write_bytes(data)
    again = LogpCache(tmp_path)
    assert again.get(_key("a")) is None
    assert again.damaged == 1


def test_a_second_writer_appends_to_a_file_of_its_own(tmp_path):
    with LogpCache(tmp_path) as one, LogpCache(tmp_path) as two:
        one.put(_key("a"), (-1.0,))
        two.put(_key("b"), (-2.0,))
    assert len(list(tmp_path.glob("*.logps"))) == 2
    assert len(LogpCache(tmp_path)) == 2


def test_a_cache_that_is_only_read_writes_nothing(tmp_path):
    LogpCache(tmp_path).get(_key("a"))
    assert list(tmp_path.iterdir()) == []


def test_a_key_of_another_length_is_refused(tmp_path):
    with pytest.raises(ValueError, match="32 bytes"):
        LogpCache(tmp_path).put("abcd", (-1.0,))


def test_a_folder_that_is_a_file_is_refused_with_its_name(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError, match="cache"):
        LogpCache(tmp_path / "cache")
