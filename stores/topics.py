"""Takes a region's topics away; what makes them is in `stores.kafka`."""

from concurrent.futures import wait

from confluent_kafka.admin import AdminClient

from core.settings import Kafka
from core.topics import consumer_group, dead_letter_topic, message_topics
from stores.kafka import configuration


def remove_topics(kafka: Kafka, region: str) -> None:
    """With the region's group and all that was in them: for regions of tests alone. What cannot go now stays."""
    admin = AdminClient(configuration(kafka))
    wait([*admin.delete_topics([*message_topics(region), dead_letter_topic(region)]).values()])
    wait([*admin.delete_consumer_groups([consumer_group(region)]).values()])
