from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.redaction import clean_text, redact_text, redact_url

SECRET = "S3cr3tS1gnature0123456789"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/a/b.wav", "https://h/a/b.wav"),
        ("https://h:9/a?X-Amz-Signature=abc", "https://h:9/a?…"),
        ("https://u:p@h/a@b?x=1#f", "https://h/a@b?…"),
        ("https://h/a#f?x=1", "https://h/a?…"),
        ("https://h?x", "https://h?…"),
        ("/a/b?x=1", "/a/b?…"),
        ("https://h/a\x1b[31m\u202eb", "https://h/a[31mb"),
        ("", ""),
    ],
)
def test_urls(url: str, shown: str) -> None:
    """Of a URL, scheme, host and path are shown, and that there was a query."""
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://h/a?X-Amz-Signature={SECRET}&x=1 failed",
        f"(https://user:{SECRET}@h/a)",
        f'{{"url":"https:\\/\\/h\\/a?x=1\\u0026Signature={SECRET}"}}',
        f"https%3A%2F%2Fh%2Fa%3Fsig%3D{SECRET}%26x",
        f"https%253A%252F%252Fh%253Fsig%253D{SECRET}",
        f"GET /a?x={SECRET}",
        f"X-Amz-Signature={SECRET}",
        f"x-amz-security-token: {SECRET}",
        f"X-Goog-Signature={SECRET}",
        f"sig={SECRET}",
        f"?sv=1&sig={SECRET}",
        f"Signature={SECRET}",
        f"signature = '{SECRET}'",
        f'"signature": "{SECRET}"',
        f"x-api-key: {SECRET}",
        f"'x-api-key': '{SECRET}'",
        f"API key: {SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"<SignatureProvided>{SECRET}</SignatureProvided>",
        f"<StringToSign>AWS4\n{SECRET}</StringToSign>",
        f"Key-Pair-Id=K&Policy={SECRET}",
    ],
)
def test_secrets_in_texts(text: str) -> None:
    """No way of writing a signature, a key or a query that errors are known to use gets through."""
    assert SECRET not in redact_text(text)
    assert SECRET not in clean_text(text)


@pytest.mark.parametrize(
    "text",
    ["The prompt is too long (max. 200).", "Is it done?", "a policy of ours", "design = 3", "x: y"],
)
def test_plain_sentences_stay(text: str) -> None:
    """A sentence without secrets is kept verbatim."""
    assert redact_text(text) == text


def test_sentence_around_a_url_stays() -> None:
    """The punctuation behind a URL is not part of it."""
    assert redact_text("See 'https://h/a?x=1'. Then (https://h/b).") == (
        "See 'https://h/a?…'. Then (https://h/b)."
    )


def test_cleaned_texts_are_one_short_line() -> None:
    """Control characters and surrogates go, white space is one space, and the rest is cut."""
    assert clean_text(" a\r\n\tb\x00\x1b\ud800\u200bc ") == "a bc"
    assert clean_text("x" * 600) == "x" * 499 + "…"
    assert clean_text("x" * 600, 10) == "x" * 9 + "…"


def test_secrets_split_by_control_characters() -> None:
    """A control character within a name does not hide the name."""
    assert SECRET not in clean_text(f"X-Amz-Sig\x00nature={SECRET}")


words = st.text(st.characters(exclude_characters=SECRET), max_size=30)


@given(
    before=words,
    name=st.sampled_from(["X-Amz-Signature", "Signature", "X-Goog-Signature", "sig", "x"]),
    path=st.text("abc/._-", max_size=10),
    other=st.text("abc=&%~", max_size=20),
    after=words,
)
def test_no_signature_survives(before: str, name: str, path: str, other: str, after: str) -> None:
    """Wherever a presigned URL stands in a text, its signature is gone."""
    url = f"https://h/{path}?{other}&{name}={SECRET}"
    assert SECRET not in redact_url(url)
    assert SECRET not in redact_text(f"{before}{url}{after}")
    assert SECRET not in clean_text(f"{before}{url}{after}")


@given(st.text())
def test_any_text_can_be_cleaned(text: str) -> None:
    """The result is printable, encodable, bounded, and stays as it is when cleaned again."""
    cleaned = clean_text(text)
    assert cleaned.encode() is not None
    assert cleaned.isprintable()
    assert len(cleaned) <= 500
    assert clean_text(cleaned) == cleaned
    assert redact_url(text).isprintable()
