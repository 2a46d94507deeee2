"""What S3 says of restores and checksums, in its own words on the wire: what the double leaves out is answered here."""

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

import pytest

from core.archive import Speed
from core.errors import BlockedError, OutcomeUnknownError, RefusedError
from core.lifecycle import Rule
from stores.objects import NotFoundError, Restore, RestoreUnderWayError
from stores.s3 import S3Objects, connect, ensure_bucket
from tests.behaviour.conftest import MOTO, s3_settings

BODY = b"sealed" * 100
KEY = "frozen/messages/s000/week=2826/shard=00000/000-00000007-a.parquet"
GLACIER = {"x-amz-storage-class": "GLACIER"}


@contextmanager
def slow_restores(endpoint: str) -> Iterator[None]:
    """The double then needs a few looks at an object before it is there."""
    set_transition(endpoint, {"progression": "manual", "times": 4})
    try:
        yield
    finally:
        set_transition(endpoint, {"progression": "immediate"})


def set_transition(endpoint: str, transition: dict[str, object]) -> None:
    body = json.dumps({"model_name": "s3::keyrestore", "transition": transition}).encode()
    url = f"{endpoint}/moto-api/state-manager/set-transition"
    with urlopen(Request(url, data=body, method="POST", headers={"Content-Type": "application/json"})) as answer:
        assert answer.status == 201


def test_s3_tells_of_a_restore_under_way(endpoint: str) -> None:
    client = connect(s3_settings(endpoint))
    bucket = secrets.token_hex(6)
    ensure_bucket(client, bucket)
    objects = S3Objects(client, bucket, MOTO)
    with slow_restores(endpoint):
        objects.put(KEY, BODY, storage_class="GLACIER")
        objects.restore(KEY, Speed.EXPEDITED, 1)
        seen: list[Restore] = []
        while not seen or seen[-1].is_ongoing or not any(copy.is_ongoing for copy in seen):
            found = objects.head(KEY)
            assert found is not None
            assert found.restore is not None
            seen.append(found.restore)
            assert len(seen) < 20
    assert Restore(True, None) in seen
    assert objects.get(KEY) == BODY


@contextmanager
def answering(*answers: tuple[int, str] | None, head: dict[str, str]) -> Iterator[S3Objects]:
    """A server of one object that answers each POST, and each look at its rules, with the next of (status, error code);
    None: hangs up."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.send_response(200)
            for name, value in {"ETag": '"e"', "Content-Length": str(len(BODY)), **head}.items():
                self.send_header(name, value)
            self.send_header("Last-Modified", "Mon, 02 Mar 2026 10:30:00 GMT")
            self.end_headers()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer()

        def answer(self) -> None:
            answer = left.pop(0)
            if answer is None:
                self.connection.close()
                self.close_connection = True
                return
            body = f"<Error><Code>{answer[1]}</Code></Error>".encode() if answer[1] else b""
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path.endswith("?lifecycle"):
                self.answer()
                return
            body = b"<Error><Code>InvalidObjectState</Code></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    client = connect(s3_settings(f"http://127.0.0.1:{server.server_port}"))
    try:
        yield S3Objects(client, "firn-us")
    finally:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([(409, "RestoreAlreadyInProgress")], RestoreUnderWayError),
        ([(503, "GlacierExpeditedRetrievalNotAvailable")] * 3, BlockedError),
        ([(500, "InternalError")] * 3, OutcomeUnknownError),
        ([None, (409, "RestoreAlreadyInProgress")], OutcomeUnknownError),
        ([(403, "AccessDenied")], RefusedError),
        ([(404, "NoSuchKey")], NotFoundError),
    ],
)
def test_what_s3_says_of_a_restore_is_told_in_our_words(
    answers: list[tuple[int, str] | None], kind: type[Exception]
) -> None:
    with answering(*answers, head=GLACIER) as objects, pytest.raises(kind, match=KEY) as caught:
        objects.restore(KEY, Speed.BULK, 1)
    assert type(caught.value) is kind


def test_s3_is_not_asked_to_shorten_a_stay() -> None:
    head = GLACIER | {"x-amz-restore": 'ongoing-request="false", expiry-date="Fri, 21 Dec 2299 00:00:00 GMT"'}
    with answering(head=head) as objects:
        info = objects.restore(KEY, Speed.BULK, 30)
    assert info.restore == Restore(False, datetime(2299, 12, 21, tzinfo=UTC))


def checksum(suffix: str = "") -> str:
    return base64.b64encode(hashlib.sha256(BODY).digest()).decode() + suffix


@pytest.mark.parametrize(
    ("head", "attested", "is_known"),
    [
        ({"x-amz-checksum-sha256": checksum()}, True, True),
        ({"x-amz-checksum-sha256": checksum("-3")}, False, False),
        ({"x-amz-checksum-sha256": checksum(), "x-amz-checksum-type": "COMPOSITE"}, False, False),
        ({"x-amz-checksum-sha256": checksum(), "x-amz-checksum-type": "FULL_OBJECT"}, True, True),
        ({"x-amz-meta-firn-sha256": hashlib.sha256(BODY).hexdigest()}, False, True),
        ({}, False, False),
    ],
)
def test_s3_attests_only_what_it_keeps_of_the_whole_object(
    head: dict[str, str], attested: bool, is_known: bool
) -> None:
    """And a frozen object of which nobody knows the hash is told about all the same."""
    with answering(head=GLACIER | head) as objects:
        info = objects.head(KEY)
    assert info is not None
    assert info.attested is attested
    assert info.sha256 == (hashlib.sha256(BODY).hexdigest() if is_known else "")


def test_s3_tells_its_lifecycle_rules(endpoint: str) -> None:
    client = connect(s3_settings(endpoint))
    bucket = secrets.token_hex(6)
    ensure_bucket(client, bucket)
    objects = S3Objects(client, bucket, MOTO)
    assert list(objects.lifecycle()) == []
    rules: Any = [
        {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "lake/"}, "Expiration": {"Days": 30}},
        {
            "ID": "cold",
            "Status": "Disabled",
            "Filter": {"And": {"Prefix": "media/", "Tags": [{"Key": "k", "Value": "v"}]}},
            "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}],
        },
    ]
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    assert list(objects.lifecycle()) == [
        Rule("old", "lake/", ("expires",)),
        Rule("cold", "media/", ("moves to GLACIER",), is_enabled=False, is_tagged=True),
    ]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [((403, "AccessDenied"), RefusedError), ((503, "SlowDown"), BlockedError), ((501, "NotImplemented"), None)],
)
def test_rules_that_may_not_be_looked_at_are_not_taken_for_none(
    answer: tuple[int, str], fault: type[Exception] | None
) -> None:
    with answering(answer, answer, answer, head={}) as objects:
        if fault is None:
            assert list(objects.lifecycle()) == []
        else:
            with pytest.raises(fault):
                objects.lifecycle()
