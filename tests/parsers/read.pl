#!/usr/bin/perl
# Reads header sections as programs in Perl do, with Mail::Address.
#
# A section a line, in hexadecimal; for each a line of the addresses found in From, in hexadecimal.
use strict;
use warnings;
use Encode ();
use Mail::Address;
use Mail::Header;

$| = 1;
local $SIG{__WARN__} = sub { };
while (my $line = <STDIN>) {
    chomp $line;
    my @lines = map { "$_\n" } split /\n/, pack('H*', $line);
    my $header = Mail::Header->new(\@lines, Modify => 0, MailFrom => 'KEEP');
    my @found;
    for my $value ($header->get('From')) {
        my $decoded = eval { Encode::encode('UTF-8', Encode::decode('MIME-Header', $value)) };
        for my $text (grep { defined } $value, $decoded) {
            push @found, map { $_->address // () } eval { Mail::Address->parse($text) };
        }
    }
    print unpack('H*', join("\n", @found)), "\n";
}
