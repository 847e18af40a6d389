"""A stand-in for a language model. It is no language model: it answers by a fixed rule.

It speaks as much of OpenAI's API as the story needs, POST /v1/chat/completions with and without streaming, on Python's
standard library alone. Each answer says that it comes from a stand-in. It refuses calls without the API key of its
environment, and, as real models do with a prompt that holds one of their control tokens, it fails on `<|endoftext|>`.

    PORT (8000)   API_KEY (none: every caller may)   DELAY_MS (20): time until the first word
"""

import http.server
import json
import os
import sys
import time
import uuid

MODEL = "stand-in-not-an-llm"
CONTROL_TOKEN = "<|endoftext|>"
API_KEY = os.environ.get("API_KEY", "")
DELAY_SECONDS = float(os.environ.get("DELAY_MS", "20")) / 1000


def answer(messages: list[dict]) -> str:
    """The rule: names the stand-in, and says back how the question began."""
    question = next((str(message.get("content", "")) for message in reversed(messages) if message.get("role") == "user"), "")
    return f"This is a stand-in, not a language model. You wrote: {' '.join(question.split()[:12])}"


def tokens(text: str) -> int:
    """Words stand in for tokens."""
    return len(text.split())


class StandIn(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "StandInLLM/1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self.reply(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "quickstart"}]})
        else:
            self.fail(404, "not_found", "There is no such path.")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path != "/v1/chat/completions":
            return self.fail(404, "not_found", "There is no such path.")
        if API_KEY and self.headers.get("authorization") != f"Bearer {API_KEY}":
            return self.fail(401, "invalid_api_key", "The API key is missing or wrong.")
        try:
            call = json.loads(body)
            messages = list(call["messages"])
            prompt = " ".join(str(message["content"]) for message in messages)
        except (ValueError, KeyError, TypeError):
            return self.fail(400, "invalid_request", "The body isn't a chat completion request.")
        time.sleep(DELAY_SECONDS)
        if CONTROL_TOKEN in prompt:
            return self.fail(500, "model_error", f"The prompt holds the control token {CONTROL_TOKEN}.")
        text = answer(messages)
        usage = {"prompt_tokens": tokens(prompt), "completion_tokens": tokens(text), "total_tokens": tokens(prompt) + tokens(text)}
        head = {"id": f"chatcmpl-{uuid.uuid4().hex[:12]}", "created": int(time.time()), "model": call.get("model", MODEL)}
        if call.get("stream"):
            wants_usage = bool((call.get("stream_options") or {}).get("include_usage"))
            return self.stream(head, text, usage if wants_usage else None)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self.reply(200, {**head, "object": "chat.completion", "choices": [choice], "usage": usage})

    def stream(self, head: dict, text: str, usage: dict | None) -> None:
        """Server-sent events, a word each, as the API does it."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        head = {**head, "object": "chat.completion.chunk"}
        for index, word in enumerate(text.split()):
            delta = {"content": word if index == 0 else f" {word}"}
            if index == 0:
                delta["role"] = "assistant"
            self.event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self.event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if usage:
            self.event({**head, "choices": [], "usage": usage})
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, value: dict) -> None:
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def reply(self, status: int, value: dict) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status: int, code: str, message: str) -> None:
        self.reply(status, {"error": {"message": message, "type": code, "code": code}})

    def log_message(self, *_) -> None:
        """One line per request is too much."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    port = int(os.environ.get("PORT", "8000"))
    print(f"Stand-in on port {port}: this is NOT a language model, it answers by a fixed rule.", file=sys.stderr, flush=True)
    Server(("0.0.0.0", port), StandIn).serve_forever()


if __name__ == "__main__":
    main()
