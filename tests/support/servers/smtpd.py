"""A mail server for tests. It appends each mail as a line of JSON to the file `mails` in its folder.

It listens on a free port of 127.0.0.1 and writes the port to the file `port`; a restarted server uses the same
port. It rejects `nobody…@` permanently, and `busy…@` temporarily at the first attempt.
"""
import asyncio
import email
import email.policy
import json
import os

from aiosmtpd.smtp import SMTP


class MailStore:
    busy = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody"):
            return "550 no such mailbox"
        if address.startswith("busy") and address not in self.busy:
            self.busy.add(address)
            return "451 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)

        def part(kind):
            body = mail.get_body((kind,))
            return body.get_content().replace("\r\n", "\n").rstrip("\n") + "\n" if body else None

        record = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": [[name, str(value)] for name, value in mail.items()],
            "text": part("plain"),
            "html": part("html"),
        }
        with open("mails", "a") as mails:
            mails.write(json.dumps(record) + "\n")
        return "250 OK"


async def main():
    port = int(open("port").read()) if os.path.exists("port") else 0
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(MailStore(), hostname="test", loop=loop), "127.0.0.1", port)
    with open("port.new", "w") as file:
        file.write(str(server.sockets[0].getsockname()[1]))
    os.rename("port.new", "port")
    await server.serve_forever()


asyncio.run(main())
