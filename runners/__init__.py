"""The runners that are shipped: one file each, written with the public interface only.

Nothing in ``switchboard`` imports this package.  A configuration section names a class here
(``class = runners.null:Null``) exactly as it would name a class of anybody else's.
"""
