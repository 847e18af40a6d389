"""Asks questions through a PromptRelease as live traffic, and counts what came back, caller by caller.

The prompt isn't in the request, only its name and variables: the release decides which version of it is used. Counting and ending
are those of client.py.
"""

import argparse
import json
import random

import client

QUESTIONS = [
    "May I take my cello into the cabin?", "When does the desk in Newark close?", "My flight left without me. What now?",
    "How do I add a meal for a child?", "Is the 7 o'clock to Chicago on time?", "Can I change the name on a ticket?",
    "Where is my suitcase?", "Do you fly to Honolulu in winter?", "How early should I be at the gate?", "Can my cat fly with me?",
]


class Chat:
    """A question in turn; every fourth is asked for as a stream."""

    def __init__(self, prompt: str, seed: int):
        self._prompt = prompt
        self._random = random.Random(seed)

    def next_body(self, caller: str) -> bytes:
        variables = {"question": self._random.choice(QUESTIONS)}
        body = {"model": self._prompt, "prompt": {"id": self._prompt, "variables": variables}, "user": caller}
        if self._random.random() < 0.25:
            body["stream"] = True
        return json.dumps(body).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default="support-reply")
    client.add_options(parser)
    parser.set_defaults(rows_per_request=1, rate=20, window=500)
    options = parser.parse_args()
    options.source = options.prompt
    client.run(options, f"{options.url.rstrip('/')}/v1/chat/completions", Chat(options.prompt, options.seed))


if __name__ == "__main__":
    main()
