"""What the NetworkPolicies of a rendered overlay let through."""


def allowed(policies, source, target, port):
    """Whether a pod with labels `source` reaches `port` of a pod with labels `target` in the same namespace."""
    leaves = _one_side(policies, "Egress", "egress", "to", source, target, port)
    return leaves and _one_side(policies, "Ingress", "ingress", "from", target, source, port)


def _one_side(policies, kind, rules, peers, own, other, port):
    mine = [p["spec"] for p in policies if kind in p["spec"]["policyTypes"] and _selects(p["spec"]["podSelector"], own)]
    assert mine, "a default policy selects every pod"
    return any(_port(rule, port) and _peer(rule.get(peers), other) for policy in mine for rule in policy.get(rules, []))


def _port(rule, port):
    return "ports" not in rule or any(entry["port"] == port for entry in rule["ports"])


def _peer(peers, labels):
    """No peers: anybody. A peer with a namespaceSelector is in another namespace."""
    return peers is None or any(
        "namespaceSelector" not in peer and _selects(peer["podSelector"], labels) for peer in peers
    )


def _selects(selector, labels):
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(_matches(entry, labels) for entry in selector.get("matchExpressions", []))


def _matches(entry, labels):
    assert entry["operator"] in ("Exists", "In"), entry
    return entry["key"] in labels and (entry["operator"] == "Exists" or labels[entry["key"]] in entry["values"])
