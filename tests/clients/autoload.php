<?php
// Debian's packages, as Composer's own file would load them.
require "/usr/share/php/libphp-phpmailer/autoload.php";
require "/usr/share/php/Symfony/Component/Mailer/autoload.php";
