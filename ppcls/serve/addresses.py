"""Images by their address: off unless asked for, and never from a private network."""

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit, urlunsplit

import httpx

from ppcls.serve.problems import ProblemError
from ppcls.serve.settings import Limits
from ppcls.utils.text import visible

REDIRECTS = 3
SECONDS = 10.0
SCHEMES = {"http": 80, "https": 443}


def refused(url: str, why: str) -> ProblemError:
    return ProblemError(422, "image", f"{visible(url)}: {why}")


def is_public(text: str) -> bool:
    """Whether an IP address is one of the whole internet's."""
    found = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        for inner in (found.ipv4_mapped, found.sixtofour, found.teredo and found.teredo[1]):
            if inner:
                return is_public(str(inner))
        if found in ipaddress.ip_network("64:ff9b::/96"):
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
    return found.is_global and not found.is_multicast


async def resolve(url: str, host: str, port: int) -> str:
    """An address of the host, all of whose addresses are public.

    What is connected to is this very address: a name that is asked for twice can have two answers.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise refused(url, "no such host") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise refused(url, "its host is in a private network, which this service does not ask")
    return addresses[0]


async def fetch(url: str, limits: Limits) -> bytes:
    """The bytes behind an address.

    Raises:
        ProblemError: it is private, not http(s), redirects too often, fails, or is too large.
    """
    try:
        return await asyncio.wait_for(follow(url, limits), SECONDS)
    except asyncio.TimeoutError:
        raise refused(url, f"did not come within {SECONDS:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        reason = visible(str(error)) or type(error).__name__
        raise refused(url, f"cannot be had ({reason})") from None


async def follow(url: str, limits: Limits) -> bytes:
    at = url
    async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client:
        for _ in range(REDIRECTS + 1):
            parts = urlsplit(at)
            host = parts.hostname
            if parts.scheme not in SCHEMES or not host or parts.username is not None:
                raise refused(url, "is no http or https address")
            port = parts.port or SCHEMES[parts.scheme]
            address = await resolve(url, host, port)
            bracketed = f"[{address}]" if ":" in address else address
            target = urlunsplit(
                (parts.scheme, f"{bracketed}:{port}", parts.path or "/", parts.query, "")
            )
            named = f"[{host}]" if ":" in host else host
            headers = {"Host": named if parts.port is None else f"{named}:{port}"}
            request = client.build_request(
                "GET", target, headers=headers | {"Accept-Encoding": "identity"},
                extensions={"sni_hostname": host},
            )  # fmt: skip
            answer = await client.send(request, stream=True)
            try:
                if answer.is_redirect:
                    at = str(httpx.URL(at).join(answer.headers["location"]))
                    continue
                if answer.status_code != 200:
                    raise refused(url, f"HTTP {answer.status_code}")
                found = bytearray()
                async for chunk in answer.aiter_raw():
                    found += chunk
                    if len(found) > limits.body:
                        raise refused(url, f"has more than {limits.body:,} bytes")
                return bytes(found)
            finally:
                await answer.aclose()
    raise refused(url, f"redirects more than {REDIRECTS} times")
