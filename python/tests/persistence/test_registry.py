"""Which store a URI stands for."""

from __future__ import annotations

import pytest

from holdfast.persistence import (
    BadUri,
    FilesystemStore,
    Store,
    UnknownScheme,
    Uri,
    make_store,
    register,
)


# P5: the same cases as the Rust client's.
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("/var/lib/jobs", ("file", "", "/var/lib/jobs")),
        ("jobs?x=%20", ("file", "", "jobs?x=%20")),
        ("c/a://b", ("file", "", "c/a://b")),
        ("file:///a%20b", ("file", "", "/a b")),
        ("FILE://localhost/a", ("file", "localhost", "/a")),
        ("holdfast://a:1,b:2/site", ("holdfast", "a:1,b:2", "/site")),
        ("holdfast://[::1]:7480", ("holdfast", "[::1]:7480", "")),
    ],
)
def test_uris_come_apart(text, parts):
    uri = Uri.parse(text)
    assert (uri.scheme, uri.authority, uri.path) == parts
    assert uri.query == ()
    assert str(uri) == text


def test_queries_come_apart():
    uri = Uri.parse("holdfast://a:1/n?peers=b:2,c:3&timeout=5&x&y=%C3%A9")
    pairs = (("peers", "b:2,c:3"), ("timeout", "5"), ("x", ""), ("y", "\u00e9"))
    assert (uri.path, uri.query) == ("/n", pairs)


@pytest.mark.parametrize("text", ["", "file:///a%", "file:///a%2", "file:///%zz", "file:///%ff"])
def test_what_stands_for_no_text_is_refused(text):
    with pytest.raises(BadUri):
        Uri.parse(text)


# P5
def test_bare_path_means_a_file(tmp_path):
    for uri in (str(tmp_path / "x"), f"file://{tmp_path}/x", f"file://localhost{tmp_path}/x"):
        store = make_store(uri)
        assert isinstance(store, FilesystemStore)
        assert store.name == f"file://{tmp_path}/x"
    assert not (tmp_path / "x").exists(), "it is made by the first save"


@pytest.mark.parametrize("uri", ["file://host/a", "file://", "file:///a?x=1"])
def test_files_that_are_not_here_are_refused(uri):
    with pytest.raises(BadUri, match=uri.replace("?", r"\?")):
        make_store(uri)


# P5
def test_unknown_scheme_lists_those_that_are_known():
    with pytest.raises(UnknownScheme, match=r"unknown scheme 'nope' in 'nope://x'; .*: file"):
        make_store("nope://x")


# P5
def test_registered_constructor_makes_the_stores_of_its_scheme():
    made = []

    class Own(Store):
        load = remove = replace = save = None

        def __init__(self, uri, *args, **kwargs):
            made.append((uri.authority, args, kwargs))

    register("Test+own", lambda *_: pytest.fail("it was overwritten"))
    # Silently, as upstream does.
    register("test+own", Own)
    assert isinstance(make_store("TEST+OWN://x", 1, y=2), Own)
    assert made == [("x", (1,), {"y": 2})]
    with pytest.raises(BadUri):
        register("a b", Own)
    with pytest.raises(TypeError, match="no constructor"):
        register("test", "no constructor")
