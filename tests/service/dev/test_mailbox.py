"""The mailbox over SMTP and HTTP; every call here is one that Mailpit answers alike."""

import asyncio
import smtplib
from collections.abc import AsyncIterator, Callable
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from service.dev.mailbox.mailbox import Mailbox
from service.dev.mailbox.sink import SIZE_LIMIT
from service.dev.mailbox.store import Store
from service.dev.ports import free_port

PIXEL = b"\x89PNG\r\n\x1a\n" + b"0" * 20


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Mailbox]:
    mailbox = Mailbox(tmp_path / "mails.sqlite3", smtp_port=0, http_port=free_port())
    await mailbox.start()
    yield mailbox
    await mailbox.stop()


@pytest.fixture
async def http(box: Mailbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=box.url, transport=httpx.AsyncHTTPTransport(retries=5)) as client:
        yield client


async def talk(box: Mailbox, conversation: Callable[[smtplib.SMTP], object]) -> object:
    def run() -> object:
        with smtplib.SMTP("127.0.0.1", box.sink.port, timeout=60) as client:
            client.ehlo()
            return conversation(client)

    return await asyncio.to_thread(run)


def mail(subject: str = "Hello", text: str = "It works.", **headers: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Learnly <hello@learnly.example>"
    message["To"] = "Ada Lovelace <ada@example.org>"
    message["Subject"] = subject
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message


async def send(box: Mailbox, *messages: EmailMessage, to: list[str] | None = None) -> None:
    def conversation(client: smtplib.SMTP) -> None:
        for message in messages:
            client.send_message(message, to_addrs=to)

    await talk(box, conversation)


async def get(http: httpx.AsyncClient, path: str) -> dict:
    answer = await http.get(path)
    answer.raise_for_status()
    return answer.json()


async def subjects(http: httpx.AsyncClient) -> list[str]:
    return [one["Subject"] for one in (await get(http, "/api/v1/messages"))["messages"]]


async def test_a_mail_is_listed_as_mailpit_lists_it(box: Mailbox, http: httpx.AsyncClient) -> None:
    message = mail(
        "Grüße", "Hello  Ada,\n\nwelcome!", Cc="c@example.org", Reply_To="help@learnly.example", Message_ID="<1@x>"
    )
    await send(box, message, to=["ada@example.org", "c@example.org", "hidden@example.org"])
    page = await get(http, "/api/v1/messages")
    assert {name: page[name] for name in ("total", "unread", "count", "messages_count", "start")} == {
        "total": 1,
        "unread": 1,
        "count": 1,
        "messages_count": 1,
        "start": 0,
    }
    (found,) = page["messages"]
    assert found["ID"]
    assert found["Created"].endswith("Z")
    assert found["Size"] > 100
    assert {
        name: found[name]
        for name in ("MessageID", "Read", "From", "To", "Cc", "Bcc", "ReplyTo", "Subject", "Attachments", "Snippet")
    } == {
        "MessageID": "1@x",
        "Read": False,
        "From": {"Name": "Learnly", "Address": "hello@learnly.example"},
        "To": [{"Name": "Ada Lovelace", "Address": "ada@example.org"}],
        "Cc": [{"Name": "", "Address": "c@example.org"}],
        "Bcc": [{"Name": "", "Address": "hidden@example.org"}],
        "ReplyTo": [{"Name": "", "Address": "help@learnly.example"}],
        "Subject": "Grüße",
        "Attachments": 0,
        "Snippet": "Hello Ada, welcome!",
    }


async def test_opening_a_mail_shows_its_bodies_and_marks_it_read(box: Mailbox, http: httpx.AsyncClient) -> None:
    message = mail(List_Unsubscribe="<https://learnly.example/u/1>", List_Unsubscribe_Post="List-Unsubscribe=One-Click")
    message.add_alternative("<h1>Hello</h1><img src='cid:logo'>", subtype="html")
    message.get_payload()[1].add_related(PIXEL, "image", "png", cid="<logo>")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="Größe.pdf")
    await send(box, message)
    found = await get(http, "/api/v1/message/latest")
    assert found["Text"].strip() == "It works."
    assert "<h1>Hello</h1>" in found["HTML"]
    assert found["ReturnPath"] == "hello@learnly.example"
    assert found["ListUnsubscribe"]["Links"] == ["https://learnly.example/u/1"]
    assert [(one["FileName"], one["ContentType"], one["Size"]) for one in found["Attachments"]] == [
        ("Größe.pdf", "application/pdf", 4)
    ]
    assert [one["ContentID"] for one in found["Inline"]] == ["logo"]
    part = await http.get(f"/api/v1/message/{found['ID']}/part/{found['Attachments'][0]['PartID']}")
    assert part.content == b"%PDF"
    page = await get(http, "/api/v1/messages")
    assert (page["unread"], page["messages"][0]["Read"]) == (0, True)


async def test_the_source_is_byte_for_byte_what_was_sent(box: Mailbox, http: httpx.AsyncClient) -> None:
    raw = b"From: a@example.org\r\nX-Two: 1\r\nX-Two: =?utf-8?q?=C3=A4?=\r\nSubject: \xc3\xa4\r\n\r\n.dot\r\n..\r\n"
    await talk(box, lambda client: client.sendmail("a@example.org", ["b@example.org"], raw, ["SMTPUTF8"]))
    assert (await http.get("/api/v1/message/latest/raw")).content == raw
    headers = await get(http, "/api/v1/message/latest/headers")
    assert headers["X-Two"] == ["1", "=?utf-8?q?=C3=A4?="]
    assert (await get(http, "/api/v1/messages"))["messages"][0]["Subject"] == "ä"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("welcome", ["Welcome"]),
        ("WELCOME course", ["Welcome"]),
        ('"your course"', ["Welcome"]),
        ("course your", ["Welcome"]),
        ("to:ada@", ["Invoice", "Welcome"]),
        ("to:ada@ -subject:welcome", ["Invoice"]),
        ("from:tasks@", ["Done"]),
        ("has:attachment", ["Invoice"]),
        ("message-id:done@x", ["Done"]),
        ("subject:welcome is:unread", ["Welcome"]),
        ("is:read", []),
        ("bill.pdf", ["Invoice"]),
        ("100%", []),
        ("'; DROP TABLE mails; --", []),
    ],
)
async def test_search_finds(box: Mailbox, http: httpx.AsyncClient, query: str, found: list[str]) -> None:
    invoice = mail("Invoice", "pay 100 %")
    invoice.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="bill.pdf")
    done = mail("Done", "It is done.", Message_ID="<done@x>")
    done.replace_header("From", "tasks@tracker.example")
    done.replace_header("To", "bob@example.org")
    await send(box, mail("Welcome", "Your course waits."), done, invoice)
    answer = await http.get("/api/v1/search", params={"query": query})
    assert [one["Subject"] for one in answer.json()["messages"]] == found
    assert answer.json()["messages_count"] == len(found)
    assert answer.json()["total"] == 3


async def test_pages_go_back_in_time(box: Mailbox, http: httpx.AsyncClient) -> None:
    await send(box, *(mail(f"mail {number}") for number in range(5)))
    page = await get(http, "/api/v1/messages?start=1&limit=2")
    assert [one["Subject"] for one in page["messages"]] == ["mail 3", "mail 2"]
    assert (page["count"], page["messages_count"], page["start"]) == (2, 5, 1)


async def test_mails_are_deleted_by_id_by_search_and_all_at_once(box: Mailbox, http: httpx.AsyncClient) -> None:
    await send(box, *(mail(f"mail {number}") for number in range(4)))
    newest = (await get(http, "/api/v1/messages"))["messages"][0]["ID"]
    assert (await http.request("DELETE", "/api/v1/messages", json={"IDs": [newest]})).text == "ok"
    assert (await http.delete("/api/v1/search", params={"query": "subject:0"})).text == "ok"
    assert await subjects(http) == ["mail 2", "mail 1"]
    assert (await http.delete("/api/v1/messages")).text == "ok"
    assert (await get(http, "/api/v1/messages"))["total"] == 0
    assert (await http.get("/api/v1/message/latest")).status_code == 404


async def test_mails_are_marked_read_and_unread(box: Mailbox, http: httpx.AsyncClient) -> None:
    await send(box, mail("one"), mail("two"))
    await http.put("/api/v1/messages", json={"Read": True})
    assert (await get(http, "/api/v1/messages"))["unread"] == 0
    newest = (await get(http, "/api/v1/messages"))["messages"][0]["ID"]
    await http.put("/api/v1/messages", json={"Read": False, "IDs": [newest]})
    assert (await get(http, "/api/v1/search?query=is:unread"))["messages"][0]["ID"] == newest


async def test_the_html_can_run_and_load_nothing(box: Mailbox, http: httpx.AsyncClient) -> None:
    message = mail()
    message.add_alternative(
        "<head></head><script>1</script><img src='cid:logo'><img src='https://t.example/1.gif'>", "html"
    )
    message.get_payload()[1].add_related(PIXEL, "image", "png", cid="<logo>")
    await send(box, message)
    id = (await get(http, "/api/v1/messages"))["messages"][0]["ID"]
    view = await http.get(f"/view/{id}.html")
    policy = view.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    assert policy.startswith("sandbox ")
    assert "img-src data:;" in policy
    assert "<img src='data:image/png;base64," in view.text
    assert '<head><base target="_blank">' in view.text
    assert (await http.get(f"/view/{id}.txt")).text.strip() == "It works."


async def test_the_page_loads_only_its_own_files(http: httpx.AsyncClient) -> None:
    page = await http.get("/")
    assert "text/html" in page.headers["content-type"]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    for name in ("mailbox.js", "mailbox.css", "icon.svg", "clip.svg"):
        assert (await http.get(f"/{name}")).status_code == 200
    assert (await http.get("/%2e%2e%2fweb.py")).status_code == 404


async def test_an_attachment_that_a_browser_would_run_is_saved_instead(box: Mailbox, http: httpx.AsyncClient) -> None:
    message = mail()
    message.add_attachment("<script>1</script>", subtype="html", filename='x".html')
    await send(box, message)
    found = await get(http, "/api/v1/message/latest")
    part = await http.get(f"/api/v1/message/latest/part/{found['Attachments'][0]['PartID']}")
    assert part.headers["content-type"] == "application/octet-stream"
    assert part.headers["content-disposition"] == "attachment; filename*=UTF-8''x%22.html"
    assert part.headers["x-content-type-options"] == "nosniff"


async def test_another_host_name_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/v1/messages", headers={"Host": "evil.example"})).status_code == 400
    assert (await http.get("/api/v1/messages", headers={"Host": "localhost:1"})).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_it_says_that_it_is_well(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b"no header at all",
        b"From: =?utf-8?b?broken\r\nTo: <<>,\r\nDate: yesterday\r\n\r\nx",
        b"Content-Type: text/html; charset=nope\r\n\r\n<b>x",
        b"Content-Type: multipart/mixed\r\n\r\nno boundary",
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"
        b"--a\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx\r\n--a--",
        b"Content-Transfer-Encoding: base64\r\n\r\n!!!",
        b"Subject: \xff\xfe\r\n\r\n\xff\xfe",
        b"From: a\x00b@example.org\r\n\r\n\x00",
        b"X: " + b"y" * 900 + b"\r\n" * 2 + b"(" * 900,
    ],
)
async def test_a_broken_mail_is_kept_and_shown(box: Mailbox, http: httpx.AsyncClient, raw: bytes) -> None:
    await talk(box, lambda client: client.sendmail("a@example.org", ["b@example.org"], raw))
    found = await get(http, "/api/v1/message/latest")
    assert found["Bcc"] == [{"Name": "", "Address": "b@example.org"}]
    assert (await get(http, "/api/v1/search?query=b@example.org"))["messages_count"] == 1
    for path in ("raw", "headers"):
        assert (await http.get(f"/api/v1/message/latest/{path}")).status_code == 200


async def test_smtp_offers_and_keeps_its_word(box: Mailbox) -> None:
    def conversation(client: smtplib.SMTP) -> None:
        assert int(client.esmtp_features["size"]) == SIZE_LIMIT
        assert {"8bitmime", "smtputf8", "pipelining", "auth"} <= set(client.esmtp_features)
        client.login("anybody", "anything")
        assert client.mail("a@example.org", [f"size={SIZE_LIMIT + 1}"])[0] == 552
        assert client.rset()[0] == 250
        assert client.rcpt("b@example.org")[0] == 503
        code, reply = client.mail("a@example.org")[0], client.rcpt("b@example.org")[0]
        assert (code, reply) == (250, 250)
        code, text = client.data(b"Subject: x\r\n\r\nx")
        assert code == 250
        assert text.startswith(b"2.0.0 Ok: queued as ")

    await talk(box, conversation)


async def test_pipelined_commands_are_answered_in_order(box: Mailbox, http: httpx.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", box.sink.port)
    writer.write(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
    codes = []
    while not codes or codes[-1] != b"354":
        codes.append((await asyncio.wait_for(reader.readline(), 60))[:3])
    writer.write(b"Subject: piped\r\n\r\nx\r\n.\r\nQUIT\r\n")
    rest = [line[:3] for line in (await asyncio.wait_for(reader.read(), 60)).splitlines()]
    assert rest == [b"250", b"221"]
    writer.close()
    assert (await get(http, "/api/v1/message/latest"))["Subject"] == "piped"


async def test_mails_outlive_the_mailbox(tmp_path: Path) -> None:
    for number in range(2):
        mailbox = Mailbox(tmp_path / "mails.sqlite3", smtp_port=0, http_port=free_port())
        await mailbox.start()
        await send(mailbox, mail(f"mail {number}"))
        await mailbox.stop()
    assert (tmp_path / "mails.sqlite3").stat().st_mode & 0o777 == 0o600
    store = Store(tmp_path / "mails.sqlite3")
    assert [one.subject for one in store.find().mails] == ["mail 1", "mail 0"]
    store.close()


async def test_only_the_newest_are_kept(box: Mailbox, http: httpx.AsyncClient) -> None:
    box.store.kept = 3
    await send(box, *(mail(f"mail {number}") for number in range(5)))
    assert await subjects(http) == [
        "mail 4",
        "mail 3",
        "mail 2",
    ]
    box.store.kept_bytes = 5_000
    await send(box, mail("large", ("x" * 70 + "\n") * 62))
    assert await subjects(http) == ["large", "mail 4"]


async def test_it_stops_while_clients_hold_on(tmp_path: Path) -> None:
    mailbox = Mailbox(None, smtp_port=0, http_port=free_port())
    await mailbox.start()
    async with httpx.AsyncClient(base_url=mailbox.url, transport=httpx.AsyncHTTPTransport(retries=5)) as client:
        await client.get("/livez")
        reader, writer = await asyncio.open_connection("127.0.0.1", mailbox.sink.port)
        await reader.readline()
        await asyncio.wait_for(mailbox.stop(), 30)
        assert await reader.read() == b""
        writer.close()
