"""An HTML page, read back with the standard library's parser."""

from html.parser import HTMLParser

VOID = {"meta", "img"}
HOSTILE = "</h3><script>alert('x')</script> \"><img src=x> &amp; {{ 1 }}"
"""Text that must stay text."""


class Page(HTMLParser):
    """Collects what tests ask about, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def within(self, tag: str) -> list[str]:
        return [text for inside, text in self.texts if inside == tag]

    def tags(self) -> set[str]:
        return {tag for tag, _, _ in self.attributes}

    def values(self, tag: str, attribute: str) -> list[str]:
        return [value for found, name, value in self.attributes if (found, name) == (tag, attribute)]

    def assert_self_contained(self) -> None:
        """Check that nothing outside the page is needed, and nothing in it can run."""
        links = [
            value for _, name, value in self.attributes if name in {"src", "href", "xlink:href", "srcset", "action"}
        ]
        assert links
        assert all(link.startswith(("data:", "#")) for link in links)
        assert not {"script", "link", "iframe"} & self.tags()
        assert not any("url(" in style.replace("url(#", "") or "@import" in style for style in self.within("style"))
        assert "default-src 'none'" in self.values("meta", "content")[-1]
