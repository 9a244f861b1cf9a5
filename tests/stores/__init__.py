"""Tests of the stores: what every backend must do, and what MySQL and MariaDB must survive."""
