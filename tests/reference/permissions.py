"""What permissions mean, without any cleverness: for comparison."""

from __future__ import annotations


def matches(pattern, text):
    if not pattern:
        return not text
    head, rest = pattern[0], pattern[1:]
    if head == "*":
        return any(matches(rest, text[skipped:]) for skipped in range(len(text) + 1))
    return bool(text) and head in {"?", text[0]} and matches(rest, text[1:])


def may_read(grants, feed, symbol):
    for grant in grants:
        for pattern in grant.deny:
            if matches(pattern.strip().upper(), symbol.strip().upper()):
                return False
    for grant in grants:
        if "*" in grant.feeds or feed in grant.feeds:
            for pattern in grant.read:
                if matches(pattern, symbol):
                    return True
    return False


def may_write(grants, symbol):
    for grant in grants:
        for pattern in grant.deny:
            if matches(pattern.strip().upper(), symbol.strip().upper()):
                return False
    return any(matches(pattern, symbol) for grant in grants for pattern in grant.write)
