"""What the NetworkPolicies of a rendered overlay let through."""

NAMESPACE = "kubernetes.io/metadata.name"


def outside(namespace):
    """Anything in another namespace, or in none; the policies here say nothing of its own side."""
    return {NAMESPACE: namespace}


def allowed(policies, source, target, port):
    """Whether a pod with labels `source` reaches `port` of a pod with labels `target`; either may be outside."""
    leaves = NAMESPACE in source or _one_side(policies, "Egress", "egress", "to", source, target, port)
    enters = NAMESPACE in target or _one_side(policies, "Ingress", "ingress", "from", target, source, port)
    return leaves and enters


def _one_side(policies, kind, rules, peers, own, other, port):
    mine = [p["spec"] for p in policies if kind in p["spec"]["policyTypes"] and _selects(p["spec"]["podSelector"], own)]
    assert mine, "a default policy selects every pod"
    return any(_port(rule, port) and _peer(rule.get(peers), other) for policy in mine for rule in policy.get(rules, []))


def _port(rule, port):
    return "ports" not in rule or any(entry["port"] == port for entry in rule["ports"])


def _peer(peers, labels):
    """No peers: anybody. A peer with a namespaceSelector is in another namespace."""
    selector = "namespaceSelector" if NAMESPACE in labels else "podSelector"
    assert all(len(peer) == 1 for peer in peers or []), "pods of a namespace are not told apart here"
    return peers is None or any(selector in peer and _selects(peer[selector], labels) for peer in peers)


def _selects(selector, labels):
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(_matches(entry, labels) for entry in selector.get("matchExpressions", []))


def _matches(entry, labels):
    assert entry["operator"] in ("Exists", "In"), entry
    return entry["key"] in labels and (entry["operator"] == "Exists" or labels[entry["key"]] in entry["values"])
