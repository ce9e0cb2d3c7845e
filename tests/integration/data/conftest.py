from servers import moto_server, rclone_server  # noqa: F401
