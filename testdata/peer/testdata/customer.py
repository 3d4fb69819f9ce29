"""A customer's mail server on aiosmtpd: PORT, a file of the addresses that it knows, a directory for its mail."""

import asyncio
import os
import sys

from aiosmtpd.smtp import SMTP

port, users, mail = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(users, encoding="utf-8") as f:
    known = set(f.read().split())


class Customer:
    taken = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address not in known:
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        self.taken += 1
        name = os.path.join(mail, str(self.taken))
        with open(name + ".part", "wb") as f:
            f.write(envelope.original_content)
        os.rename(name + ".part", name)
        return "250 2.0.0 OK"


async def serve():
    customer = Customer()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(customer, hostname="mail.customer.example"), "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(serve())
