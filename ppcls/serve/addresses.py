"""Images by their address: off unless asked for, and never from a private network."""

import asyncio
import functools
import ipaddress
import socket
import ssl
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import httpx

from ppcls.serve.problems import ProblemError
from ppcls.utils.text import visible

REDIRECTS = 3
SECONDS = 10.0
SCHEMES = {"http": 80, "https": 443}
MOST_TRIED = 4  # addresses of one host
GLOBAL = ipaddress.ip_network("2000::/3")  # what of IPv6 is given out at all
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def refused(url: str, why: str) -> ProblemError:
    return ProblemError(422, "image", f"{visible(url)}: {why}")


def is_public(text: str) -> bool:
    """Whether an IP address is one of the whole internet's, and so is the IPv4 one in it."""
    found = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return is_public(str(found.ipv4_mapped))
        if found in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        inner = [found.sixtofour, *(found.teredo or ())]
        if found not in GLOBAL or not all(is_public(str(one)) for one in inner if one):
            return False
    return found.is_global and not found.is_multicast


async def resolve(url: str, host: str, port: int) -> list[str]:
    """Addresses of the host, all of which are public.

    What is connected to is one of these: a name that is asked for twice can have two answers.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise refused(url, "no such host") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not addresses or not all(map(is_public, addresses)):
        raise refused(url, "its host is in a private network, which this service does not ask")
    return addresses[:MOST_TRIED]


async def fetch(url: str, most: int, seconds: float = SECONDS) -> bytes:
    """The bytes behind an address, at most so many, within so many seconds and ten.

    Raises:
        ProblemError: it is private, not http(s), redirects too often, fails, or is too large.
    """
    seconds = max(0.0, min(seconds, SECONDS))
    try:
        return await asyncio.wait_for(follow(url, most), seconds)
    except asyncio.TimeoutError:
        raise refused(url, f"did not come within {seconds:.3g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        reason = visible(str(error)) or type(error).__name__
        raise refused(url, f"cannot be had ({reason})") from None


@functools.cache
def tls() -> ssl.SSLContext:
    """Whose certificates count; reading them takes its time."""
    return httpx.create_ssl_context(trust_env=False)


async def follow(url: str, most: int) -> bytes:
    at = url
    for _ in range(REDIRECTS + 1):
        # A client of its own: what one host sets is not sent to the next.
        async with httpx.AsyncClient(trust_env=False, timeout=SECONDS, verify=tls()) as client:
            answer = await ask(client, url, at)
            try:
                if answer.has_redirect_location:
                    at = urljoin(at, answer.headers["location"])
                    continue
                if answer.status_code != 200:
                    raise refused(url, f"HTTP {answer.status_code}")
                found = bytearray()
                async for chunk in answer.aiter_raw():
                    found += chunk
                    if len(found) > most:
                        raise refused(url, f"has more than the {most:,} bytes that may come")
                return bytes(found)
            finally:
                await answer.aclose()
    raise refused(url, f"redirects more than {REDIRECTS} times")


async def ask(client: httpx.AsyncClient, url: str, at: str) -> httpx.Response:
    """The head of what is at an address, to which `url` has led."""
    parts = urlsplit(at)
    if parts.scheme not in SCHEMES or not parts.hostname or parts.username is not None:
        raise refused(url, "is no http or https address")
    host = parts.hostname
    if ":" not in host:
        host = host.encode("idna").decode()
    port = parts.port or SCHEMES[parts.scheme]
    addresses = await resolve(url, host, port)
    for address in addresses:
        request = client.build_request(
            "GET", target(parts, address, port), extensions={"sni_hostname": host},
            headers={"Host": bracketed(host) + f":{port}" * bool(parts.port),
                     "Accept-Encoding": "identity"},
        )  # fmt: skip
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if address == addresses[-1]:
                raise
    raise AssertionError


def target(parts: SplitResult, address: str, port: int) -> str:
    place = f"{bracketed(address)}:{port}"
    return urlunsplit((parts.scheme, place, parts.path or "/", parts.query, ""))


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
