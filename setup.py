"""All of the package but the accelerator, which is built only on request, stands in setup.cfg.

``SWITCHBOARD_ACCELERATOR=1`` in the environment asks for it, and a C compiler that is missing is then an error.  Without the variable nothing is
compiled: what `bin/release` builds works everywhere.
"""

import os

from setuptools import Extension, setup

ACCELERATOR = Extension('switchboard_accelerator', ['switchboard/store/accelerator.c'], py_limited_api=True)

if os.environ.get('SWITCHBOARD_ACCELERATOR') == '1':
    setup(ext_modules=[ACCELERATOR], options={'bdist_wheel': {'py_limited_api': 'cp311'}})
else:
    setup()
