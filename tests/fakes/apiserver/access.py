"""Who may do what: roles and bindings as RBAC reads them."""

from tests.fakes.apiserver.store import ApiError, Object, Store

ADMIN = "admin"


def user_of(token: str) -> str:
    """`admin`, or `NAMESPACE:NAME` of a service account."""
    return "kubernetes-admin" if token == ADMIN else f"system:serviceaccount:{token}"


def allowed(store: Store, token: str, verb: str, group: str, resource: str, namespace: str) -> bool:
    """Whether any role that is bound to this service account allows the request."""
    if token == ADMIN:
        return True
    rules: list[Object] = []
    bindings = [*store.find("rolebindings.rbac.authorization.k8s.io", namespace), *store.find("clusterrolebindings.rbac.authorization.k8s.io")]
    for binding in bindings if namespace else store.find("clusterrolebindings.rbac.authorization.k8s.io"):
        home = binding["metadata"].get("namespace", "")
        names = [f"{s.get('namespace') or home}:{s['name']}" for s in binding.get("subjects", []) if s["kind"] == "ServiceAccount"]
        if token not in names:
            continue
        ref = binding["roleRef"]
        kind = "roles" if ref["kind"] == "Role" else "clusterroles"
        try:
            role = store.get((f"{kind}.rbac.authorization.k8s.io", home if kind == "roles" else "", ref["name"]))
        except ApiError:
            continue
        rules += role.get("rules") or []
    return any(
        {verb, "*"} & set(r.get("verbs", [])) and {group, "*"} & set(r.get("apiGroups", [])) and {resource, "*"} & set(r.get("resources", [])) for r in rules
    )


def check(store: Store, token: str, verb: str, group: str, resource: str, namespace: str) -> None:
    """Raises ApiError 403 in the words of Kubernetes."""
    if not allowed(store, token, verb, group, resource, namespace):
        name = f"{resource}.{group}" if group else resource
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        message = f'{name} is forbidden: User "{user_of(token)}" cannot {verb} resource "{resource}" in API group "{group}" {where}'
        raise ApiError(403, "Forbidden", message)
