"""The CA of a store, in the forms that pods take."""

import hashlib

import pytest

from lakeloop.render.certificates import as_pem, certificates, java_options, trust_store

ONE = """\
-----BEGIN CERTIFICATE-----
MIIBezCCASGgAwIBAgIUeERuiVXojiwrWRIA1RZiiAdUpeYwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIb3RoZXIgY2EwHhcNMjYxMTI1MTgwNDI4WhcNMzYxMTIyMTgw
NDI4WjATMREwDwYDVQQDDAhvdGhlciBjYTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABHO9PXICckDLCIEsYfWOGSNnFVFK7dx6zq3aTjg7oolh9ULn8b4sBRC8Jama
Ai33dP74D+DtO6p2hmXtetCExAujUzBRMB0GA1UdDgQWBBQ/Pdr20szVPmGuq3zm
5uuK0THfAzAfBgNVHSMEGDAWgBQ/Pdr20szVPmGuq3zm5uuK0THfAzAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIFoCqqQM/Gia1yYZuxkPLiAvzbMw
ZJ/P8uoTFHfhBK+PAiEA1YQz2NK8hlecyPKghrkW7pENczqgyVxi1S+QOPxgYMs=
-----END CERTIFICATE-----
"""
TWO = """\
-----BEGIN CERTIFICATE-----
MIIBizCCATGgAwIBAgIUQs2mlbZ9QfXQBEBOA8giA/K8UgMwCgYIKoZIzj0EAwIw
GzEZMBcGA1UEAwwQbGFrZWxvb3AgdGVzdCBjYTAeFw0yNjExMjUxODA0MjhaFw0z
NjExMjIxODA0MjhaMBsxGTAXBgNVBAMMEGxha2Vsb29wIHRlc3QgY2EwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAAQaC49MqSlLU79uXZS5YvelQMr+8Wx72UwomdR2
qnnp5Lgb+mhzLzpFeSU1knx6Z8mIgBvmaCTvcyXilTukgq4Ko1MwUTAdBgNVHQ4E
FgQUaWanp88gcqS6x2urMfB5KMov+j4wHwYDVR0jBBgwFoAUaWanp88gcqS6x2ur
MfB5KMov+j4wDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBJXhCy
nPNbMYTN3pE+Ada3pkwN0rCtcItnsvyA0HKpVAIhAIkCut0R8R0qvTjc0bfrK7oS
fYsw828RyJH/2CLqgiAu
-----END CERTIFICATE-----
"""
KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----\n"


def test_a_bundle_is_cut_down_to_its_certificates() -> None:
    """It is copied into ConfigMaps, which more people may read than the file it came from."""
    found = certificates(f"# ours\n{ONE}{KEY}{TWO}{ONE}")
    assert len(found) == 2
    assert as_pem(found) == ONE + TWO


def test_line_ends_of_another_kind() -> None:
    assert as_pem(certificates(ONE.replace("\n", "\r\n"))) == ONE


@pytest.mark.parametrize("text", ["", KEY, "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----"])
def test_what_holds_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)certificate"):
        certificates(text)


def test_trust_store() -> None:
    """The same bytes for the same certificates. `keytool -list` and a TLS client of OpenJDK 17 have read this one."""
    store = trust_store(certificates(ONE + TWO))
    assert store[:4] == bytes.fromhex("feedfeed")
    assert hashlib.sha256(store).hexdigest() == "4898607839faee10574ee17bc30a8dff95fa722e310e0a40befc6019a105442e"


def test_java_options() -> None:
    assert java_options("/etc/x") == (
        "-Djavax.net.ssl.trustStore=/etc/x/truststore.jks -Djavax.net.ssl.trustStoreType=JKS"
        " -Djavax.net.ssl.trustStorePassword=changeit"
    )
