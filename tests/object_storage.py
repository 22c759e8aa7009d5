"""A real server of the S3 protocol on loopback, in this process, and what stands in its buckets."""

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3  # type: ignore[import-untyped] # it brings no types
import pytest
from botocore.config import Config  # type: ignore[import-untyped] # it brings no types
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

ACCESS_KEY, SECRET_KEY = "an-access-key", "canary-secret-key"


class ObjectStorage:
    """`url` answers; `client` is another library's, to look behind ours."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"max_attempts": 1}, proxies={}),
        )

    def point_to(self, monkeypatch: pytest.MonkeyPatch, url: str = "") -> None:
        """Give this process, and what it starts, the variables that lead here, or through `url`."""
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", url or self.url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)

    @contextmanager
    def bucket(self) -> Iterator[str]:
        """A bucket of its own, gone at the end with all that is in it."""
        name = f"bucket-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        try:
            yield name
        finally:
            for upload in self.uploads(name):
                self.client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
            for key in self.keys(name):
                self.client.delete_object(Bucket=name, Key=key)
            self.client.delete_bucket(Bucket=name)

    def keys(self, bucket: str) -> list[str]:
        """Everything that a bucket holds, whole keys."""
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=bucket).get("Contents", [])]

    def uploads(self, bucket: str) -> list[dict[str, Any]]:
        """The multipart uploads that nobody finished or aborted."""
        return list(self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", []))


class _Atomic:
    """The server's application, with its conditional writes one after the other.

    S3 promises that of two at once one is refused; this server looks first and writes then.
    """

    def __init__(self) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] in {"PUT", "POST"} and {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} & set(environ):
            with self._lock:
                return self._application(environ, start_response)
        return self._application(environ, start_response)


@contextmanager
def serve_objects() -> Iterator[ObjectStorage]:
    """The server, on a port that is free."""
    # It logs each request, and a traceback where an upload is aborted while its last part arrives.
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = make_server("127.0.0.1", 0, _Atomic(), threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield ObjectStorage(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
