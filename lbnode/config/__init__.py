"""From what people write to the Config that is in force.

    text --parse--> documents, Problems at file:line:col   text: YAML and JSON   document: whole <-> by key
    store entries --resolve--> Config + Problems + good    (a bad value: the last good one stays in force)
        value: one key's JSON   units: a service and its servers   vip_groups   build: to the model
    entries x entries --diff--> Changes                    change: requests -> one guarded transaction
    schema, check_document: the fields of all documents, made of fields   keys: what keys name
    keepalived/ -> imported: a document made from keepalived.conf, and what is not in it

A *document* is the JSON object behind one store key; a *whole document* is what `lbctl apply -f` takes: all of them in
one YAML or JSON text. bootstrap reads node.toml, which is about one node and not shared.
"""
