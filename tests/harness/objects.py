"""An object storage on loopback that speaks as much of S3 as pyarrow asks for; everything is kept in memory."""

import io
import re
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

STAMP = "2026-01-01T00:00:00.000Z"


def _joined(stream: IO[bytes]) -> bytes:
    """The bytes of chunks: SIZE;signature, a line's end, the bytes, a line's end, ... and a last one of size 0."""
    found = b""
    while size := int(stream.readline().split(b";")[0], 16):
        found += stream.read(size)
        stream.readline()
    while stream.readline().strip():
        pass  # trailers
    return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]] = {}
    uploads: ClassVar[dict[str, dict[int, bytes]]] = {}
    refused: ClassVar[Collection[str]] = ()
    lock = threading.Lock()

    def log_message(self, *_: object) -> None: ...

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path).lstrip("/"), parse_qs(parts.query, keep_blank_values=True)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = _joined(self.rfile)
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        signed = "aws-chunked" in self.headers.get("Content-Encoding", "")
        return _joined(io.BytesIO(data)) if signed else data

    def do_PUT(self) -> None:
        key, query = self._asked()
        body = self._body()
        if any(word in key for word in self.refused):
            return self._answer(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
        with self.lock:
            if "uploadId" in query:
                self.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
            elif "/" in key:
                self.objects[key] = body
        return self._answer(200, ETag='"x"')

    def do_POST(self) -> None:
        key, query = self._asked()
        body = self._body()
        with self.lock:
            if "uploads" in query:
                name = f"u{len(self.uploads)}"
                self.uploads[name] = {}
                return self._answer(
                    200,
                    f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>".encode(),
                )
            if "uploadId" in query:
                parts = self.uploads.pop(query["uploadId"][0])
                self.objects[key] = b"".join(parts[number] for number in sorted(parts))
                return self._answer(
                    200, b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
                )
            for found in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.objects.pop(f"{key}/{found}", None)
        return self._answer(200, b"<DeleteResult></DeleteResult>")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        key, query = self._asked()
        if "list-type" in query:
            return self._list(key, query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
        if "/" not in key.rstrip("/"):
            return self._answer(200)
        with self.lock:
            data = self.objects.get(key)
        if data is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        status, wanted = 200, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.command == "GET":
            status, data = 206, data[int(wanted[1]) : int(wanted[2]) + 1 if wanted[2] else None]
        return self._answer(
            status, data, ETag='"x"', Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT", Content_Length=str(len(data))
        )

    def _list(self, bucket: str, prefix: str, delimiter: str) -> None:
        bucket = bucket.rstrip("/")
        files, folders = "", set()
        with self.lock:
            for key in sorted(self.objects):
                name = key.removeprefix(f"{bucket}/")
                if not key.startswith(f"{bucket}/{prefix}"):
                    continue
                if delimiter and delimiter in name[len(prefix) :]:
                    folders.add(prefix + name[len(prefix) :].split(delimiter)[0] + delimiter)
                else:
                    files += f"<Contents><Key>{escape(name)}</Key><Size>{len(self.objects[key])}</Size><LastModified>{STAMP}</LastModified></Contents>"
        common = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)
        )
        self._answer(
            200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{files}{common}</ListBucketResult>".encode()
        )

    def do_DELETE(self) -> None:
        key, _ = self._asked()
        with self.lock:
            self.objects.pop(key, None)
        self._answer(204)


@contextmanager
def object_storage(refused: Collection[str] = ()) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(URI of a bucket's folder, the objects by bucket/key).

    Args:
        refused: who puts an object with one of these words in its key is told that access is denied.
    """
    objects: dict[str, bytes] = {}
    handler = type("Handler", (_Handler,), {"objects": objects, "uploads": {}, "refused": refused})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield (
            f"s3://user:secret@bucket/runs?scheme=http&region=x&endpoint_override=127.0.0.1:{server.server_port}",
            objects,
        )
    finally:
        server.shutdown()
        server.server_close()
