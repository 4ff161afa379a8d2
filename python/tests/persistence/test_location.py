"""Where a cluster is, as URIs say it: the same cases as the Rust client's."""

from __future__ import annotations

import pytest

from holdfast.persistence import BadUri, Uri
from holdfast.persistence.cluster.location import WAIT, Location


def location(text):
    return Location.of(Uri.parse(text))


# P5
def test_uri_says_where_the_cluster_is():
    made = location("holdfast://a:1,b/site?peers=c:3,[::1]:4&timeout_s=2.5")
    assert made.endpoints == ("a:1", "b:7480", "c:3", "[::1]:4")
    assert (made.namespace, made.wait) == ("site", 2.5)
    assert made.name == "holdfast://a:1,b:7480,c:3,[::1]:4/site"
    for plain in ("holdfast://a:1", "holdfast://a:1/"):
        made = location(plain)
        assert (made.namespace, made.wait) == ("default", WAIT)
    # Writes get all of the time that they are given.
    assert location("holdfast://a:1/n?timeout_s=3600").session_idle == 7200


# P5 G11
@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("holdfast:///site", "names no node"),
        ("holdfast://a:x/site", "'a:x' is no node"),
        ("holdfast://a:0/site", "'a:0' is no node"),
        ("holdfast://a:65536/site", "'a:65536' is no node"),
        ("holdfast://:1/site", "':1' is no node"),
        ("holdfast://u@a:1/site", "'u@a:1' is no node"),
        ("holdfast://[::1/site", "is no node"),
        ("holdfast://a:1/n?time=3", "no parameter 'time'; there are peers and timeout_s"),
        ("holdfast://a:1/n?timeout_s=0", "not '0'"),
        ("holdfast://a:1/n?timeout_s=43201", "0.001 to 43200, and not '43201'"),
        ("holdfast://a:1/n?timeout_s=1min", "not '1min'"),
        ("holdfast://a:1/n?timeout_s=NaN", "not 'NaN'"),
    ],
)
def test_what_is_wrong_is_named(uri, said):
    with pytest.raises(BadUri) as error:
        location(uri)
    assert said in str(error.value)
