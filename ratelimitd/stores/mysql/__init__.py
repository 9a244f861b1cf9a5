"""The store in MySQL and MariaDB, a Galera cluster too."""
