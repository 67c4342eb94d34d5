"""Upload: everything arrives once, whatever goes wrong on the way; the server is a small one on loopback."""

import http.server
import re
import sys
import threading
from collections import Counter

import orjson
import pytest

from ehrsim import cli
from ehrsim.errors import FormatError, InputError, MissingExtraError, ServerError, UsageError
from ehrsim.fhir import export_fhir, upload, upload_fhir
from ehrsim.fhir.writers import SHARED_TYPES


class Server(http.server.ThreadingHTTPServer):
    """Keeps what is put, one version each, and refuses transactions that refer to what it does not have."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/fhir"
        self.store, self.requests, self.tokens = {}, 0, set()
        self.trouble, self.version, self.refuse = [], "4.0.1", b"nothing"
        self.lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, content, **headers):
        body = orjson.dumps(content)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        statement = {"resourceType": "CapabilityStatement", "fhirVersion": self.server.version}
        self.answer(*((200, statement) if self.path == "/fhir/metadata" else (404, {})))

    def do_POST(self):
        server, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        with server.lock:
            server.requests += 1
            server.tokens.add(self.headers.get("Authorization"))
            trouble = server.trouble.pop(0) if server.trouble else None
            if trouble == "hang up":
                self.close_connection = True
                self.connection.close()
                return
            if trouble:
                self.answer(trouble, {}, Retry_After="1")
                return
            if server.refuse in body:
                issue = {"severity": "error", "code": "invalid", "diagnostics": "not that one"}
                self.answer(422, {"resourceType": "OperationOutcome", "issue": [issue]})
                return
            self.answer(200, self.accepted(orjson.loads(body)))

    def accepted(self, bundle):
        store, names = self.server.store, {}
        for entry in bundle["entry"]:
            assert entry["request"]["method"] == "PUT"
            names[entry["fullUrl"]] = entry["request"]["url"]
        responses = []
        for entry in bundle["entry"]:
            text = orjson.dumps(entry["resource"])
            for full_url, name in names.items():
                text = text.replace(f'"{full_url}"'.encode(), f'"{name}"'.encode())
            assert b'"urn:uuid:' not in text.replace(b'"source":"urn', b"")
            named = {name.decode() for name in re.findall(rb'"reference":"(\w+/[^"]+)"', text)}
            assert named <= store.keys() | names.values()
            url = entry["request"]["url"]
            responses.append({"response": {"status": "200 OK" if url in store else "201 Created"}})
            store[url] = text
        return {"resourceType": "Bundle", "type": f"{bundle['type']}-response", "entry": responses}


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """How long was waited for; nobody waits."""
    waited = []
    monkeypatch.setattr(upload.time, "sleep", waited.append)
    monkeypatch.delenv(upload.TOKEN, raising=False)
    return waited


@pytest.fixture(params=["ndjson", "transaction", "batch"])
def exported(request, every_row, tmp_path):
    """An export of each kind, cut small, and the number of its resources by type."""
    report = export_fhir(every_row, tmp_path / "out", format=request.param, entries=10, shard=None)
    return tmp_path / "out", report.resources


@pytest.fixture
def bundles(every_row, tmp_path):
    export_fhir(every_row, tmp_path / "out", format="transaction", entries=10)
    return tmp_path / "out"


def by_type(server):
    return dict(sorted(Counter(name.partition("/")[0] for name in server.store).items()))


def test_everything_arrives_and_a_second_upload_sends_nothing(server, exported):
    folder, resources = exported
    report = upload_fhir(folder, server.url)
    assert by_type(server) == resources
    assert (report.created, report.updated, report.skipped) == (sum(resources.values()), 0, 0)
    before, requests = dict(server.store), server.requests
    report = upload_fhir(folder, server.url)
    assert (report.bundles, report.skipped) == (0, requests)
    assert server.requests == requests
    report = upload_fhir(folder, server.url, again=True, workers=1)
    assert (report.created, report.updated) == (0, sum(resources.values()))
    assert server.store == before


def test_what_every_format_brings_about_is_the_same(server, every_row, tmp_path):
    stores = []
    for format in ("ndjson", "transaction", "batch"):
        server.store.clear()
        export_fhir(every_row, tmp_path / format, format=format, entries=7, compressed=format == "ndjson")
        upload_fhir(tmp_path / format, server.url)
        stores.append(dict(server.store))
    assert stores[0] == stores[1] == stores[2]


def test_passing_trouble_is_waited_out(server, bundles, waits):
    server.trouble = [429, 503, "hang up", 500]
    report = upload_fhir(bundles, server.url, workers=1)
    assert report.repeated == 4
    # As long as the server asks for; without its word twice as long each time.
    assert waits == [1.0, 1.0, 2.0, 1.0]
    assert report.created == len(server.store)


def test_a_server_that_goes_away_is_told_and_the_rest_sent_later(server, bundles):
    server.trouble = [None, None, None, *["hang up"] * 3]
    with pytest.raises(ServerError, match=r"cannot be reached.* 3 times.*goes on where"):
        upload_fhir(bundles, server.url, attempts=3, workers=1)
    assert len(server.store) > 0
    accepted = server.requests - 3
    report = upload_fhir(bundles, server.url)
    assert report.skipped == accepted == 3
    assert report.skipped + report.bundles == len(list(bundles.iterdir()))


def test_a_bundle_that_is_refused_is_named_and_what_rests_on_it_not_sent(server, bundles):
    server.refuse = b'"resourceType":"Encounter"'
    with pytest.raises(ServerError, match=r"refused \d+ of \d+ bundles; first [12]-001\.json: HTTP 422 not that one"):
        upload_fhir(bundles, server.url)
    assert {name.partition("/")[0] for name in server.store} == set(SHARED_TYPES)
    server.refuse = b"nothing"
    report = upload_fhir(bundles, server.url)
    assert report.skipped == 1
    assert by_type(server)["Patient"] == 2


def test_nothing_is_sent_that_rests_on_what_was_refused(server, bundles, every_row, tmp_path):
    server.refuse = b'"resourceType":"Location"'
    for folder in (bundles, tmp_path / "lines"):
        if folder != bundles:
            export_fhir(every_row, folder)
        with pytest.raises(ServerError, match="refused 1 of"):
            upload_fhir(folder, server.url)
        assert {name.partition("/")[0] for name in server.store} <= {"Organization"}


def test_a_journal_cut_off_in_the_middle_of_a_line_is_read(server, bundles):
    upload_fhir(bundles, server.url)
    journal = next(bundles.parent.glob("out.*.upload.jsonl"))
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-9])
    assert upload_fhir(bundles, server.url).bundles == 1
    assert sorted(journal.read_bytes().splitlines()) == sorted(whole.splitlines())
    journal.write_bytes(b"something else\n")
    with pytest.raises(InputError, match=r"no journal.*--again"):
        upload_fhir(bundles, server.url)


def test_an_export_that_has_changed_is_sent_again(server, bundles):
    upload_fhir(bundles, server.url)
    path = bundles / "2-001.json"
    path.write_bytes(path.read_bytes().replace(b'"active":true', b'"active":false', 1))
    report = upload_fhir(bundles, server.url)
    assert (report.bundles, report.created) == (1, 0)


def test_a_token_is_sent_to_loopback_and_never_unencrypted_elsewhere(server, bundles, monkeypatch):
    monkeypatch.setenv(upload.TOKEN, "secret")
    upload_fhir(bundles, server.url)
    assert server.tokens == {"Bearer secret"}
    with pytest.raises(UsageError, match="unencrypted"):
        upload_fhir(bundles, "http://fhir.invalid/r4")


@pytest.mark.parametrize(
    "url", ["fhir.invalid", "ftp://fhir.invalid", "https://user:pw@fhir.invalid", "https://x/?a=b"]
)
def test_urls_that_will_not_do_are_refused(bundles, url):
    with pytest.raises(UsageError):
        upload_fhir(bundles, url)


def test_a_server_of_another_kind_is_refused(server, bundles):
    server.version = "5.0.0"
    with pytest.raises(ServerError, match=r"5\.0\.0, expected 4\.0"):
        upload_fhir(bundles, server.url)
    with pytest.raises(ServerError, match=r"no FHIR server: HTTP 404"):
        upload_fhir(bundles, server.url + "/elsewhere")
    assert server.requests == 0


def test_what_is_not_made_to_be_uploaded_is_refused(server, every_row, tmp_path):
    export_fhir(every_row, tmp_path / "out", format="collection")
    with pytest.raises(FormatError, match=r"shared\.json.*--format transaction"):
        upload_fhir(tmp_path / "out", server.url)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="no FHIR"):
        upload_fhir(tmp_path / "empty", server.url)


def test_a_missing_extra_says_how_to_get_it(bundles, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"ehrsim\[upload\]"):
        upload_fhir(bundles, "http://127.0.0.1:9/fhir")


def test_the_command_says_what_was_sent(server, bundles, capsys):
    assert cli.run(["upload", str(bundles), "--server", server.url]) == 0
    assert f"{len(server.store)} resources created" in capsys.readouterr().out
    assert cli.run(["upload", str(bundles), "--server", server.url + "/x"]) == 2
    assert capsys.readouterr().err.startswith("ehrsim: http://127.0.0.1")
