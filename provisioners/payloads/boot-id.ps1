# Prints when this boot began, in UTC: another answer means another boot.
[Console]::Out.WriteLine((Get-CimInstance -ClassName Win32_OperatingSystem).LastBootUpTime.ToUniversalTime().ToString('o'))
