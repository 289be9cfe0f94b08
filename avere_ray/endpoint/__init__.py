"""The one door to remote models: any server with OpenAI's chat API, within rates and a budget, retried with patience.

    endpoint = Endpoint(cfg)                                    # EndpointConfig; the key comes from the environment
    reply = endpoint.ask(Request(messages=[user(text_part("Who speaks?"), audio_part(wav))], max_tokens=32))
    endpoint.ask_all(requests, done)                            # several at once; done(index, Reply or RequestRefused)
    endpoint.usage                                              # requests, tokens, cost so far

Threads, not coroutines: a request is one blocking HTTP call, and nothing here needs an event loop. All threads of one
`Endpoint` share its rates, its budget, and the pause a busy server asks for. Answers are never cached here: who asks
keeps what was answered, and asks for the rest later.

A server that is busy or away (408, 409, 425, 429, 5xx, no connection, no answer in time, no JSON) is asked again after
a pause: what it says in Retry-After, else exponential with jitter. A refusal of one request (400, 413, 422) is the
request's own; one of the client (401, 403, 404, a used-up quota) ends everything.
    client    one request or many: turns, pauses, refusals
    budget    rates and what may be spent
    usage     what was spent, by this process and by all
    wire      requests and answers as HTTP bodies
    parts     messages of words and media
"""

from avere_ray.endpoint.client import Done, Endpoint
from avere_ray.endpoint.parts import (
    assistant,
    audio_part,
    data_url,
    image_part,
    json_schema,
    text_part,
    user,
    video_part,
    wav,
)
from avere_ray.endpoint.usage import Usage
from avere_ray.endpoint.wire import Reply, Request

__all__ = ["Done", "Endpoint", "Reply", "Request", "Usage", "assistant", "audio_part", "data_url", "image_part",
           "json_schema", "text_part", "user", "video_part", "wav"]  # fmt: skip
