def description_json() -> bytes:
    return b"{}"
