"""What gunicorn serves: `gunicorn wsgi:app`."""

import sys

from briefly_admin import create_app
from briefly_admin.domain.errors import SettingError

try:
    app = create_app()
except SettingError as error:
    sys.stderr.write(f"{error}\n")
    raise SystemExit(error.exit_code) from None
