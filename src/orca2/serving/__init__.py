"""Chat completions over HTTP: one set of rules for teachers, judges and the evaluation of a served model.

outcomes.py   what a call can come to: Reply, Failure, Trouble, Unusable
wire.py       a request's body, and what a reply's body says
refusals.py   what an error says: ask again, give this prompt up, ask for less, or stop
markup.py     chat markup that a server has left in an answer
client.py     connections, and one call over them                                   (extra: teacher)
limits.py     how many calls are under way, and how fast they start
retries.py    how often and after how long a call is repeated
"""
