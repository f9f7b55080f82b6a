"""keepalived.conf -> an lbnode document, and a list of what has no equal. Pure: including files is the caller's part.

    text --lines--> lines as keepalived reads them (conditional lines, $definitions, ~SEQ, ~LST, include)
         --tree--> directives with their blocks and places   words: quotes, escapes, braces
         --globals, services, checks, vrrp, statics--> documents by key
    importer: all of it, and several gateways together

Each directive is either taken over by a reader or listed with its reason: `ledger` keeps account, `without_equal` says
what to do instead of what lbnode does not have. Source for everything here: keepalived.conf(5) of keepalived 2.2.
"""
