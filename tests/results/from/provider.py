"""Answers without a network: in capitals, and says nothing sensible to one question."""
def call_api(prompt, options, context):
    question = prompt.split(": ", 1)[1]
    if "broken" in question:
        return {"error": "the model is out of order"}
    return {"output": question.upper(), "tokenUsage": {"total": 7, "prompt": 4, "completion": 3}, "cost": 0.00002}
