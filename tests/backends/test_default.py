"""From a URL, or a short name with options, to a backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastapi_maintenance.backends import (
    BaseStateBackend,
    EnvVarBackend,
    LocalFileBackend,
    RedisBackend,
    backend_from_url,
)
from fastapi_maintenance.backends.default import backend_of_kind
from fastapi_maintenance.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("redis://localhost", RedisBackend, "redis://localhost:6379/0?key=maintenance"),
        (
            "redis://ana:secret@h:6380/2?key=shop:{eu}:m&ttl=0.5",
            RedisBackend,
            "redis://h:6380/2?key=shop:{eu}:m",
        ),
        ("redis://[::1]/?key=a%26b", RedisBackend, "redis://[::1]:6379/0?key=a%26b"),
        ("rediss://:secret@h", RedisBackend, "rediss://h:6379/0?key=maintenance"),
        ("unix:///run/redis.sock?key=m", RedisBackend, "unix:///run/redis.sock?db=0&key=m"),
        (
            "unix://ana:secret@/run/redis.sock?db=3",
            RedisBackend,
            "unix:///run/redis.sock?db=3&key=maintenance",
        ),
        ("valkey://ana:secret@h/2?key=m", RedisBackend, "redis://h:6379/2?key=m"),
        ("valkeys://h", RedisBackend, "rediss://h:6379/0?key=maintenance"),
        ("file:maintenance.json", LocalFileBackend, "file:maintenance.json"),
        ("file:///var/lib/my%20app/m.json", LocalFileBackend, "file:/var/lib/my app/m.json"),
        ("file://localhost/m.json?ttl=2", LocalFileBackend, "file:/m.json"),
        ("env:MAINTENANCE", EnvVarBackend, "env:MAINTENANCE"),
        ("env:", EnvVarBackend, "env:FASTAPI_MAINTENANCE_MODE"),
    ],
)
def test_a_url_names_a_backend_that_is_shown_without_a_password(
    url: str, kind: type[BaseStateBackend], shown: str
) -> None:
    backend = backend_from_url(url)

    assert type(backend) is kind
    assert backend.describe() == shown


def test_a_url_carries_the_options() -> None:
    assert backend_from_url("redis://h?ttl=0.25&timeout=3&on_data_loss=follow&key=m").ttl == 0.25
    assert backend_from_url("file:m.json?ttl=0.25").ttl == 0.25
    assert backend_from_url("file:m.json").ttl == 1.0


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "cannot start with ''"),
        ("maintenance.json", "cannot start with 'maintenance.json'.*file:maintenance.json"),
        ("http://h", "cannot start with 'http'.*redis://"),
        ("redis://h?ttl=soon", "ttl must be a number of seconds, not 'soon'"),
        ("redis://h?ttl=0", "ttl must be a positive number"),
        ("redis://h?ttl=-1", "ttl must be a positive number"),
        ("redis://h?ttl=nan", "ttl must be a positive number"),
        ("redis://h?timeout=inf", "timeout must be a positive number"),
        ("redis://h?on_data_loss=panic", "must be restore or follow, not 'panic'"),
        ("redis://h?key=", "key must not be empty"),
        ("redis://h?key=a{b", "brace but no hash tag"),
        ("redis://h?clutser=1", "unexpected keyword argument 'clutser'"),
        ("redis://[::1", "cannot be read"),
        ("redis:////:[", "cannot be read|a database that is not a number"),
        ("redis+sentinel:////:[", "does not name the master|a host without a name"),
        ("redis://h?nope=\ud800", "unexpected keyword argument 'nope'"),
        ("redis", "'redis' alone does not say where; write a URL like redis://"),
        ("valkey", "'valkey' alone does not say where; write a URL like redis://"),
        ("valkey://h?clutser=1", "unexpected keyword argument 'clutser'"),
        ("file", "'file' alone does not say where; write a URL like .*file:maintenance.json"),
        ("file://[::1/m.json", "cannot be read as one of a file: Invalid IPv6 URL"),
        ("file:", "names no local file"),
        ("file://elsewhere/m.json", "names no local file"),
        ("file:m.json?ttl=soon", "could not convert"),
        ("file:m.json?ttl=0", "ttl must be a positive number"),
        ("file:m.json?tlt=1&mode=2", "no option mode, tlt; it knows ttl"),
        ("file:m%00.json", "file_path must be a path"),
        ("env:A=B", "var_name must be the name of a variable"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        backend_from_url(url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        # Urllib.parse: 'secret' does not appear to be an IPv4 or IPv6 address.
        ("redis://ana:se[secret]@h", "cannot be read"),
        # Urllib.parse: netloc 'ana:secret@℀' contains invalid characters.
        ("redis://ana:secret@\u2100", "cannot be read"),
        ("redis://ana:12?secret@h", "an @ where it means nothing"),
        ("unix:ana:/secret@/run/redis.sock", "an @ where it means nothing"),
        ("redis+sentinel://ana:12/secret@h", "an @ where it means nothing"),
        ("redis://h?password=12&secret=x", "one of them is unknown"),
        ("secret@h:6379/0", "cannot start so"),
        ("file://ana:secret@h/m.json", "The URL names no local file"),
        ("file://ana:secret@[h/m.json", "The URL cannot be read"),
    ],
)
def test_what_may_be_of_a_password_is_not_quoted(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as refusal:
        backend_from_url(url)

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "options", "shown"),
    [
        ("env", {}, "env:FASTAPI_MAINTENANCE_MODE"),
        ("env", {"var_name": "M"}, "env:M"),
        ("file", {"file_path": Path("m.json"), "ttl": 2.0}, "file:m.json"),
        ("redis", {"url": "redis://h", "key": "m"}, "redis://h:6379/0?key=m"),
    ],
)
def test_a_short_name_takes_the_options_of_its_class(
    kind: str, options: dict[str, Any], shown: str
) -> None:
    assert backend_of_kind(kind, **options).describe() == shown


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        ("memcached", {}, "must be env, file, redis or a URL.* got 'memcached'"),
        ("file", {}, "file backend cannot take these options: .*file_path"),
        ("env", {"path": "m"}, "env backend cannot take these options: .*'path'"),
        ("redis", {"host": "h"}, "redis backend cannot take these options: .*'host'"),
        ("redis", {}, "Give a Redis URL or a client, and not both"),
    ],
)
def test_a_short_name_with_wrong_options_is_refused(
    kind: str, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        backend_of_kind(kind, **options)
