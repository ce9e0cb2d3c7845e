from servers import asked_once, moto_server, rclone_server  # noqa: F401
