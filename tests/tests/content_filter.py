"""A content filter on aiosmtpd: it marks what comes and brings it back by smtplib, with XFORWARD.

Usage: content_filter.py LISTEN BACK MARK TOLD. What is said to it is written to the file TOLD. A message with
X-Virus is refused, one with X-Die ends the connection the first time, one with X-Later is put off once."""
import asyncio
import logging
import smtplib
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

listen, back, mark, told = sys.argv[1:]
seen = set()


def tell(text):
    with open(told, 'a') as file:
        file.write(text + '\n')


class Session(SMTP):
    async def smtp_XFORWARD(self, arg):
        tell('XFORWARD ' + arg)
        self.session.forward = getattr(self.session, 'forward', []) + [arg]
        await self.push('250 Ok')


class Filter:
    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        responses.insert(1, '250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE')
        return responses

    async def handle_DATA(self, server, session, envelope):
        content = envelope.content
        tell('MAIL %s' % envelope.mail_from)
        tell('TO ' + ' '.join(envelope.rcpt_tos))
        once = content not in seen
        seen.add(content)
        if b'\nX-Virus:' in content:
            return '550 5.7.1 there is a virus in it'
        if b'\nX-Later:' in content and once:
            return '451 4.7.1 the scanner is busy'
        if b'\nX-Die:' in content and once:
            server.transport.abort()
            return '451 4.3.0 dying'
        return await asyncio.get_running_loop().run_in_executor(None, self.bring_back, session, envelope)

    def bring_back(self, session, envelope):
        try:
            with smtplib.SMTP('127.0.0.1', int(back), local_hostname='filter.test', timeout=20) as smtp:
                smtp.ehlo()
                for line in getattr(session, 'forward', []):
                    code, text = smtp.docmd('XFORWARD', line)
                    assert code == 250, text
                options = ['SMTPUTF8', 'BODY=8BITMIME'] if envelope.smtp_utf8 else []
                refused = smtp.sendmail(envelope.mail_from, envelope.rcpt_tos,
                                        b'X-Filtered: ' + mark.encode() + b'\r\n' + envelope.content, options)
                assert not refused, refused
        except smtplib.SMTPResponseException as e:
            return '%d %s' % (e.smtp_code, e.smtp_error.decode())
        except Exception as e:
            return '451 4.3.0 cannot bring it back: %s' % e
        return '250 2.0.0 brought back'


class Server(Controller):
    def factory(self):
        return Session(self.handler, enable_SMTPUTF8=True, ident='filter')


logging.disable()
Server(Filter(), hostname='127.0.0.1', port=int(listen)).start()
asyncio.new_event_loop().run_forever()
