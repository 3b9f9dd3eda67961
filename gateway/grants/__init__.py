"""Usage contracts between an owner and a grantee: nothing leaves a node without one.

catalogue.py  the closed lists: purposes, duties, legal bases, operations; what is reserved for later
document.py   Grant: strict canonical JSON, id = SHA-256;  proposal.py  TOML -> Grant
signed.py     GrantEnvelope (signatures, unchecked) .verify(owner, grantee) -> SignedGrant; Revocation
decision.py   UseRequest, Usage, decide(grant, request, now=, usage=) -> Decision, combine(decisions)
book.py       GrantBook(clock=): .add .find .accept .revoke .usage .decide .charge, each on the caller's connection
exchange.py   GrantExchange: messages between members, files, methods grant.* of the local API
present.py    a grant in words
"""
