"""A process that is killed in the middle of its talk with MLflow."""


class Killed(BaseException):
    pass


class Mortal:
    """An MLflow client that dies at its nth call."""

    def __init__(self, client, calls):
        self._client, self._left = client, calls

    def __getattr__(self, name):
        self._left -= 1
        if self._left < 0:
            raise Killed
        return getattr(self._client, name)
