"""BACKUP_STORE_URL: what it may name, and what it says of everything else."""

from pathlib import Path

import pytest

from briefly_admin.domain.errors import SettingError
from briefly_admin.vault.stores import check_url, open_store

_SECRET = "canary-pass"  # stands in URLs


@pytest.mark.parametrize(
    "url",
    [
        "", "/var/backups", "backups", "file", "http://x/y", "ftp://x", "memory:///", "s3", "s3a://bucket", "redis+x://h", "://x", "s3:/[",
        "file:backups", "file://host/dir", "file:///a?b", "file:///a#b", "file:///a%00b",
        "s3://", "s3:///prefix", "s3:bucket", "s3://b", "s3://-bucket", "s3://bu cket", "s3://bucket/../x", "s3://bucket/a//b", "s3://bucket/.x",
        "s3://bucket/a%2f..%2fb", "s3://bucket/ä", "s3://bucket?region=x", "s3://bucket#x", f"s3://key:{_SECRET}@bucket/x", "s3://bucket:99/x",
        "gs://", "az://?x",
        "redis://", "redis:", "redis://host/notanumber", "redis://host:99999999", "redis://host:port", "redis://host#x",
        f"redis://:{_SECRET}@host/0?socket_timeout=1", f"redis://:{_SECRET}@host/x", "rediss://", "unix://", "unix:", "unix:///s?db=x", "unix:///s?x=1",
    ],
)  # fmt: skip
def test_other_urls_are_a_setting_error(url: str) -> None:
    for ask in (check_url, open_store):
        with pytest.raises(SettingError, match="BACKUP_STORE_URL") as raised:
            ask(url)
        assert raised.value.remedy
        assert _SECRET not in str(raised.value)


@pytest.mark.parametrize("scheme", ["file", "s3", "redis", "rediss", "unix", "gs", "az"])
def test_the_schemes_that_are_known_are_named(scheme: str) -> None:
    with pytest.raises(SettingError) as raised:
        check_url("sftp://host/dir")
    assert f"{scheme}://" in raised.value.remedy


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("file:///var/backups", "/var/backups"),
        ("s3://bucket", "'s3://bucket'"),
        ("s3://bucket/", "'s3://bucket'"),
        ("S3://bucket.with.dots/a/b-c/", "'s3://bucket.with.dots/a/b-c'"),
        ("gs://bucket/a", "'gs://bucket/a'"),
        ("az://container/a", "'az://container/a'"),
        ("redis://host", "'redis://host:6379'"),
        (f"redis://user:{_SECRET}@host:7000/3", "'redis://host:7000, database 3'"),
        (f"rediss://:{_SECRET}@host:7000/3?ssl_cert_reqs=none", "'rediss://host:7000, database 3'"),
        (f"unix://:{_SECRET}@/a/socket?db=2", "'unix:///a/socket, database 2'"),
    ],
)
def test_urls_that_are_known_open_without_connecting(url: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    check_url(url)
    assert shown in repr(open_store(url))
    assert _SECRET not in repr(open_store(url))


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "file://localhost{}", "FILE:{}"])
def test_file_urls_name_a_directory(form: str, tmp_path: Path) -> None:
    open_store(form.format(tmp_path / "with%20space")).put("a", [b"x"])
    assert (tmp_path / "with space" / "a").read_bytes() == b"x"
