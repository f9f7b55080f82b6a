"""From what people write to the Config that is in force.

    text --parse--> documents --resolve--> Config          schema: the documents and their fields
    store entries --resolve--> Config + Problems + good    (bad values: the last good value stays in force)
    entries x entries --diff--> Changes                    change: requests -> one guarded transaction

A *document* is the JSON object behind one store key; a *whole document* is what `lbctl apply -f` takes: all of them in
one YAML or JSON text. bootstrap reads node.toml, which is about one node and not shared.
"""
