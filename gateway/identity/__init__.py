"""Who is who: keys, certificates, invitations, the member directory, and whom this node's owner approved.

names.py         PeerName(space, role, member): .uri, .parse(uri)
certificates.py  CertificateInfo(name, serial, not_before, not_after, key_fingerprint), read_certificate(pem_or_der),
                 check_certificate(pem_or_der, authority_pem, now), make_csr(key, name), read_csr(pem),
                 generate_tls_key(), platform_host(space): DNS name in every platform certificate
authority.py     CertificateAuthority: .create(space, now), .issue(csr, name, now, lifetime), .issue_platform(...)
invitation.py    Invitation(space, member, role, city, address, enrol_address, authority_pem, directory_key, token,
                 issued, expires): .render(signer), .parse(text), .check(now), .token_hash
directory.py     Entry(space, member, role, city, identity_key, sealing_key, version): .to_bytes(), SignedEntry,
                 Listing(entry, status, serials), Directory: .build(...), .verify(data, ...), .members, .coordinator
enrolment.py     EnrolmentRequest(token, csr_pem, entry, binding), EnrolmentReply(certificate_pem, directory):
                 .to_bytes(), .from_bytes(data)
node.py          NodeKeys(database, box, entropy=, clock=): .create(), .enrolment_request(invitation),
                 .enrolled(invitation, reply), .identity() -> NodeIdentity, .openers(), .renewal_due(),
                 .renewal_request() -> csr_pem, .renewed(certificate_pem), .rotate_sealing() -> SignedEntry | None
                 (the entry the platform has yet to publish), .directories, .approvals, .peers
peers.py         Directories(database): .accept(data) -> Directory, .current(), .latest(), .changes(after);
                 Approvals(database): .approve(member, fingerprint), .revoke(member), .all();
                 PeerBook: .approved() -> dict[str, Verifier], .sealing_key(member), .verifier(member),
                 .coordinator(), .listings(), .approve(member, fingerprint)
home.py          Home.node(path) | Home.platform(path): .config, .database, .unlock() -> SecretBox, .socket;
                 NodeConfig, PlatformConfig, parse_duration(text)
fingerprints.py  show_fingerprint(bytes) -> "ab12 cd34 …", parse_fingerprint(text)

The platform's side (invitations made, members enrolled, directory published) is parties/platform/registry.py:
Enrolment(registry): .invite(member=, role=, city=, valid=) -> text, .enrol(EnrolmentRequest) -> EnrolmentReply;
Registry(database, PlatformKeys, PlatformConfig): .admit(certificate) -> MemberRecord, .refused(serials),
.renew(PeerName, csr_pem), .rotate(PeerName, SignedEntry) -> directory bytes, .revoke(member),
.is_revoked(member, serial), .directory() -> bytes, .directory_version(), .members(), .verifiers(), .events(after),
.coordinator: Signer, .tls() -> (key_pem, certificate_pem), .authority_pem, .identity() -> PlatformIdentity.
parties/platform/administration.py opens both from a home: create(path, config), open_registry(path),
enrolment(registry).
"""
